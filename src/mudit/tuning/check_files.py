"""What a coordinate check leaves in a folder."""

from __future__ import annotations

from pathlib import Path

from mudit.report.coordinates import (
    coordinates_info,
    draw_coordinates,
    draw_slopes,
    slopes_info,
)
from mudit.report.theme import DARK, LIGHT, to_png, type_style
from mudit.tuning.check_rows import BOUND
from mudit.tuning.coordinate_check import CoordinateCheck


def write_check(check: CoordinateCheck, folder: Path) -> None:
    """Write `check.json`, `check.md` and the figures, light and dark, into a folder.

    Raises:
        OSError: The folder cannot be made or written to.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    check.save(folder / "check.json")
    figures = "![values over width](figures/coordinates.png)\n\n![slopes](figures/slopes.png)\n"
    (folder / "check.md").write_text(f"{check.to_markdown()}\n{figures}", encoding="utf-8")
    control = check.control.rows if check.control is not None else ()
    values = coordinates_info(
        check.rows,
        control,
        widths=check.settings.widths,
        steps=check.settings.steps,
        bound=BOUND,
    )
    slopes = slopes_info(check.rows, bound=BOUND)
    for theme, ending in ((LIGHT, ""), (DARK, "_dark")):
        with type_style(theme):
            png = to_png(draw_coordinates(values, theme))
            (folder / "figures" / f"coordinates{ending}.png").write_bytes(png)
            (folder / "figures" / f"slopes{ending}.png").write_bytes(
                to_png(draw_slopes(slopes, theme))
            )

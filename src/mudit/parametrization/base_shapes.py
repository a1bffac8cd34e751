"""microsoft/mup's base-shape files (.bsh): YAML, parameter name → base sizes, null where finite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import yaml

from mudit.errors import DataError

if TYPE_CHECKING:
    from mudit.parametrization.plan import Plan, PlanRow

BaseShape: TypeAlias = tuple[int | None, ...]

# Three comment lines on top, as mup writes them ([mup] mup/shape.py, save_base_shapes).
_HEADER = (
    "# This is a base shape file encoded in yaml\n"
    '# - `null` indicates a dimension is "finite", i.e. a non-"width" dimension\n'
    '# - a number indicates the base dimension of an "infinite" dimension, i.e. some notion of '
    '"width"\n'
)


def base_shape(row: PlanRow) -> BaseShape:
    """A row's base sizes, None where the dimension does not grow."""
    return tuple(size if grow else None for size, grow in zip(row.base_shape, row.grows))


def read_base_shapes(path: str | Path) -> dict[str, BaseShape]:
    """Base sizes by parameter name; None where a dimension is finite.

    Raises:
        DataError: The file is missing or is not a base-shape file.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no base-shape file at {path}.") from None
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {error}.") from error
    if not isinstance(content, dict) or not all(map(_is_shape, content.values())):
        raise DataError(
            f"{path} is not a base-shape file: expected lines `name: [size or null, ...]`."
        )
    return {str(name): tuple(sizes) for name, sizes in content.items()}


def write_base_shapes(plan: Plan, path: str | Path) -> None:
    """Write the plan's base shapes where `mup.set_base_shapes(model, path)` can read them."""
    names: Iterable[tuple[str, BaseShape]] = (
        (name, base_shape(row)) for row in plan.rows for name in (row.name, *row.aliases)
    )
    lines = [
        f"{name}: [{', '.join('null' if size is None else str(size) for size in sizes)}]\n"
        for name, sizes in sorted(names)
    ]
    Path(path).write_text(_HEADER + "".join(lines), encoding="utf-8")


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(size is None or isinstance(size, int) for size in value)

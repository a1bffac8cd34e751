"""A captioned data set that needs no download: the emoji of a colour font.

Names are those of Unicode's CLDR, by the package `emoji`; keywords are its aliases and the words of
the characters' own Unicode names.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

from mudit.errors import DataError, EnvironmentFailure, UsageError

# Where Debian, Fedora, Arch and Alpine put Noto Color Emoji.
FONTS = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
)
LIST = "captions.jsonl"

_STRIKE = 109  # pixels: the one size of Noto's bitmaps
_CELL = 144  # pixels: a glyph of that size is 136 wide and 128 high
_CANVAS = 3 * _STRIKE
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_ZWJ, _VS16 = "\u200d", "\ufe0f"
_GENDERS_AND_DIRECTIONS = ("\u2640", "\u2642", "\u27a1")
# Gendered characters and those for any gender.
_NEUTRAL = {
    "👨": "🧑", "👩": "🧑", "👦": "🧒", "👧": "🧒", "👴": "🧓", "👵": "🧓", "🤴": "🫅", "👸": "🫅",
    "🎅": "🧑\u200d🎄", "🤶": "🧑\u200d🎄", "🤰": "🫄", "🫃": "🫄", "🕺": "💃",
    "👫": "🧑\u200d🤝\u200d🧑", "👬": "🧑\u200d🤝\u200d🧑", "👭": "🧑\u200d🤝\u200d🧑",
    "💏": "🧑\u200d❤\u200d💋\u200d🧑", "💑": "🧑\u200d❤\u200d🧑",
}  # fmt: skip
_LICENCE = """\
Emoji of {font} (SHA-256 {digest}), drawn by `mudit data emoji`.
Noto Emoji's font is licensed under the SIL Open Font License 1.1 (https://openfontlicense.org);
another font has a licence of its own. Names: Unicode CLDR's, by the Python package emoji (BSD).
Size: {size}x{size} pixels.
"""


class Emoji(NamedTuple):
    """One emoji.

    Attributes:
        text: Its characters.
        name: CLDR's short name, e.g. `red apple`.
        keywords: Other words for it.
        group: The same for all skin tones, genders and directions of one emoji.
    """

    text: str
    name: str
    keywords: tuple[str, ...]
    group: str

    @property
    def caption(self) -> str:
        """Name and keywords."""
        return ", ".join((self.name, *self.keywords))

    @property
    def file(self) -> str:
        """A file name."""
        codes = "-".join(f"{ord(letter):x}" for letter in self.text if letter != _VS16)
        return f"images/{codes}.png"


class Drawn(NamedTuple):
    """What `draw_emoji` did.

    Attributes:
        pictures: Emoji in the folder.
        skipped: Emoji that the font cannot draw.
    """

    pictures: int
    skipped: int


def find_font(path: str = "") -> Path:
    """The colour font at `path`, or where systems have one.

    Raises:
        DataError: There is none.
    """
    places = [Path(path).expanduser()] if path else [Path(place) for place in FONTS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"there is no colour font at {', '.join(map(str, places))}. Install one (Debian: "
            "apt-get install fonts-noto-color-emoji) or give its path with --font."
        )
    return found


def known_emoji() -> Iterator[Emoji]:
    """All fully qualified emoji of Unicode that the package `emoji` knows, in its order.

    Raises:
        EnvironmentFailure: The package is not installed.
    """
    try:
        import emoji
    except ImportError:
        raise EnvironmentFailure(
            "the emoji's names need the package emoji, which is not installed: pip install "
            "'mudit[data]'."
        ) from None
    for text, facts in emoji.EMOJI_DATA.items():
        if facts["status"] != emoji.STATUS["fully_qualified"]:
            continue
        name = _words(facts["en"])
        yield Emoji(text, name, _keywords(text, name, facts.get("alias", ())), _group(text))


def draw_emoji(
    folder: Path,
    *,
    size: int,
    font: str = "",
    on_progress: Callable[[int], None] = lambda count: None,
) -> Drawn:
    """Draw every emoji of a colour font, centred on white, and write their captions beside them.

    The folder then is a data set, `captions:FOLDER`. Again with the same font and size it does
    nothing; pictures that are there already are kept.

    Args:
        folder: Where; made if absent.
        size: Side of the pictures, pixels.
        font: Path of the font; empty: the system's.
        on_progress: Told how many have been drawn.

    Raises:
        DataError: There is no such font, or it draws nothing.
        EnvironmentFailure: The package `emoji` is not installed.
        UsageError: The size is below 8, or the folder holds other pictures.
    """
    if size < 8:
        raise UsageError(f"--size is {size}; expected pixels, at least 8.")
    path = find_font(font)
    face = _face(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _claim(folder, _LICENCE.format(font=path.name, digest=digest, size=size))
    missing = _drawn(face, "\U0010ffff")  # no font has it: the box that stands for nothing
    rows: list[Emoji] = []
    pictures: list[bytes] = []
    skipped = 0
    for one in known_emoji():
        target = folder / one.file
        if not target.exists():
            picture = _drawn(face, one.text)
            if picture is None or (missing is not None and _same(picture, missing)):
                skipped += 1
                continue
            aside = target.with_name(f".{target.name}")
            _framed(picture, size).save(aside, format="PNG")
            aside.replace(target)
        rows.append(one)
        pictures.append(hashlib.sha256(target.read_bytes()).digest())
        on_progress(len(rows))
    if not rows:
        raise DataError(
            f"the font {path} draws no emoji in colour; expected one such as Noto Color Emoji. "
            "Choose another with --font."
        )
    _write_list(folder / LIST, rows, _joined([one.group for one in rows], pictures))
    return Drawn(len(rows), skipped)


def _claim(folder: Path, note: str) -> None:
    """Refuse a folder of other pictures; write what these are."""
    place = folder / "LICENCE.txt"
    found = place.read_text(encoding="utf-8") if place.exists() else None
    if found == note:
        return
    if found is not None or (folder / LIST).exists():
        raise UsageError(
            f"the folder {folder} holds other pictures, or ones of another size or font; expected "
            "a new folder, or the one of the same command. Choose another with --out, or delete it."
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    place.write_text(note, encoding="utf-8")


def _write_list(path: Path, rows: list[Emoji], groups: list[str]) -> None:
    aside = path.with_name(f".{path.name}")
    with aside.open("w", encoding="utf-8") as file:
        for one, group in zip(rows, groups, strict=True):
            row = {
                "file": one.file,
                "caption": one.caption,
                "name": one.name,
                "keywords": one.keywords,
                "group": group,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(path)


def _joined(groups: list[str], pictures: list[bytes]) -> list[str]:
    """`groups` with those made one that have a picture in common: Norway's flag is Svalbard's."""
    leader = {group: group for group in groups}

    def find(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    first: dict[bytes, str] = {}
    for group, picture in zip(groups, pictures, strict=True):
        leader[find(group)] = find(first.setdefault(picture, group))
    return [find(group) for group in groups]


# --- words ----------------------------------------------------------------------------------------


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("’", "'")


def _keywords(text: str, name: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """Aliases, and a single character's own name, where they say something new."""
    found = [_words(alias).lower() for alias in aliases]
    plain = [letter for letter in text if letter != _VS16 and ord(letter) not in _SKIN_TONES]
    if len(plain) == 1:
        own = unicodedata.name(plain[0], "").lower()
        found.append(re.sub(r"^(black|white) ", "", own))
    return tuple(word for word in dict.fromkeys(found) if word and word != name.lower())


def _group(text: str) -> str:
    letters = [letter for letter in text if ord(letter) not in _SKIN_TONES and letter != _VS16]
    plain = "".join(_NEUTRAL.get(letter, letter) for letter in letters)
    for sign in _GENDERS_AND_DIRECTIONS:
        plain = plain.replace(_ZWJ + sign, "")
    return plain


# --- pictures -------------------------------------------------------------------------------------


def _face(path: Path) -> ImageFont.FreeTypeFont:
    # Sequences (flags, families, skin tones) are one glyph only if the text is shaped.
    engine = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
    try:
        return ImageFont.truetype(str(path), _STRIKE, layout_engine=engine)
    except OSError as error:
        raise DataError(
            f"the font {path} cannot be used ({error}); expected one with colour bitmaps of "
            f"{_STRIKE} pixels, such as Noto Color Emoji (its version with colour outlines will "
            "not do). Give its path with --font."
        ) from error


def _drawn(face: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    """The glyph in its cell; None if nothing is drawn, more than one glyph, or none in colour."""
    left, top, right, bottom = face.getbbox(text)
    if right - left > 1.5 * face.getbbox("\U0001f600")[2]:
        return None  # a sequence that the font has no picture for
    # The middle of the glyph's box comes to the middle.
    place = ((_CANVAS - left - right) / 2, (_CANVAS - top - bottom) / 2)
    canvas, other = (_written(face, text, place, ink) for ink in ("black", "white"))
    if canvas.getchannel("A").getbbox() is None:
        return None
    if canvas.tobytes() != other.tobytes():
        return None  # an outline, which has the ink's colour and none of its own
    margin = (_CANVAS - _CELL) // 2
    return canvas.crop((margin, margin, margin + _CELL, margin + _CELL))


def _written(
    face: ImageFont.FreeTypeFont, text: str, place: tuple[float, float], ink: str
) -> Image.Image:
    canvas = Image.new("RGBA", (_CANVAS, _CANVAS), (255, 255, 255, 0))
    ImageDraw.Draw(canvas).text(place, text, font=face, fill=ink, embedded_color=True)
    return canvas


def _same(one: Image.Image, other: Image.Image) -> bool:
    return one.tobytes() == other.tobytes()


def _framed(cell: Image.Image, size: int) -> Image.Image:
    """On white and scaled. Cells are not cut to their glyphs: a small square has to look small."""
    white = Image.new("RGBA", cell.size, "white")
    white.alpha_composite(cell)
    return white.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)

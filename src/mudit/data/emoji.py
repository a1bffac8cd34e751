"""A captioned data set that needs no download: the emoji of a colour font.

Names are those of Unicode's CLDR, by the package `emoji`; keywords are its aliases and the words of
the characters' own Unicode names.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
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
_CANVAS = 3 * _STRIKE
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_ZWJ, _VS16 = "\u200d", "\ufe0f"
_PEOPLE = {"\U0001f468": "\U0001f9d1", "\U0001f469": "\U0001f9d1"}  # man, woman: person
_GENDERS = ("\u2640", "\u2642")
_LICENCE = """\
Emoji of {font}, drawn by `mudit data emoji`. Noto Emoji's font is licensed under the SIL Open
Font License 1.1 (https://openfontlicense.org); another font has a licence of its own. Names:
Unicode CLDR's, by the Python package emoji (BSD).
"""


class Emoji(NamedTuple):
    """One emoji.

    Attributes:
        text: Its characters.
        name: CLDR's short name, e.g. `red apple`.
        keywords: Other words for it.
        group: The same for all skin tones and genders of one emoji.
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
        UsageError: The size is below 8, or the folder has pictures of another size.
    """
    if size < 8:
        raise UsageError(f"--size is {size}, expected pixels, at least 8.")
    path = find_font(font)
    face = _face(path)
    note = folder / "LICENCE.txt"
    stamp = f"{_LICENCE.format(font=path.name)}Size: {size}x{size} pixels.\n"
    if note.exists() and note.read_text(encoding="utf-8") != stamp:
        raise UsageError(
            f"{folder} holds pictures of another size or font. Choose another folder with --out, "
            "or delete it."
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    note.write_text(stamp, encoding="utf-8")
    missing = _drawn(face, "\U0010ffff")  # no font has it: the box that stands for nothing
    rows, skipped = [], 0
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
        on_progress(len(rows))
    if not rows:
        raise DataError(f"the font {path} draws no emoji in colour. Choose another with --font.")
    aside = folder / f".{LIST}"
    with aside.open("w", encoding="utf-8") as file:
        for one in rows:
            row = {
                "file": one.file,
                "caption": one.caption,
                "name": one.name,
                "keywords": one.keywords,
                "group": one.group,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(folder / LIST)
    return Drawn(len(rows), skipped)


# --- words ----------------------------------------------------------------------------------------


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("’", "'")


def _keywords(text: str, name: str, aliases: Iterator[str]) -> tuple[str, ...]:
    """Aliases, and the first character's own name, where they say something new."""
    own = unicodedata.name(text[0], "").lower()
    found = [_words(alias).lower() for alias in aliases]
    if own and not own.startswith(("regional indicator", "emoji modifier")):
        found.append(re.sub(r"^(keycap )?(black|white) ", "", own))
    said = {name.lower(), ""}
    return tuple(word for word in found if not (word in said or said.add(word)))  # type: ignore[func-returns-value]


def _group(text: str) -> str:
    letters = [letter for letter in text if ord(letter) not in _SKIN_TONES and letter != _VS16]
    plain = "".join(_PEOPLE.get(letter, letter) for letter in letters)
    for gender in _GENDERS:
        plain = plain.removesuffix(_ZWJ + gender)
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
    """The picture, cut to its edges; None if nothing is drawn, or more than one glyph."""
    left, _, right, _ = face.getbbox(text)
    if right - left > 1.5 * face.getbbox("\U0001f600")[2]:
        return None  # a sequence that the font has no picture for
    canvas = Image.new("RGBA", (_CANVAS, _CANVAS), (255, 255, 255, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((_STRIKE, _STRIKE), text, font=face, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    return None if box is None else canvas.crop(box)


def _same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def _framed(picture: Image.Image, size: int) -> Image.Image:
    """Centred on a white square with a margin of one part in sixteen, and scaled."""
    side = round(max(picture.size) * 8 / 7)
    square = Image.new("RGBA", (side, side), "white")
    place = ((side - picture.width) // 2, (side - picture.height) // 2)
    square.alpha_composite(picture, place)
    return square.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)

"""`mudit sample`: samples of one run, or of several beside each other, as files; resumable.

A folder of one run:

    config.json      what the samples depend on; another config is refused
    parts/           batches while it runs, each whole or absent; gone at the end
    samples.npz      `arr_0` uint8 (N, H, W, 3) for the evaluator of [ADM], `labels`, `config`
    metadata.jsonl   a line for each sample: number, class or prompt, file
    images/          single PNG files that say how they were made
    grid.png         some of them

Of several runs: `side_by_side.png`, and such a folder for each.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mudit.errors import Interrupted, UsageError
from mudit.evaluation.drawing import OnProgress, Source, batches, open_sources
from mudit.evaluation.pictures import png_text, save_picture
from mudit.evaluation.request import SampleConfig
from mudit.evaluation.stored import Parts, Stored, open_npz, write_npz
from mudit.report import Sheet, draw_sheet, parametrization_name, sheet_numbers
from mudit.training import (
    claim_folder,
    disk_errors,
    exclusive,
    refuse_other_config,
    write_whole,
)

MOST_FILES = 1000  # single pictures are written without being asked for
_PER_CLASS_BESIDE = 3  # [muDiT] Figure 9: three images per prompt
_OPTION = "--out"


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """How a job of sampling is done; none of it changes an image.

    Attributes:
        files: Whether a folder gets single pictures; None: up to 1,000.
        batch_size: Images denoised at once.
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        vae: For a run on latents, another folder or hub name of its VAE.
        text_encoder: For a run on texts, another folder or hub name of its text encoder.
        made_by: Program and version, for the pictures' metadata.
        on_progress: Told of images.
        on_notice: Told what the user should know.
        should_stop: Asked after each step.
    """

    files: bool | None = None
    batch_size: int = 64
    device: str = "auto"
    vae: str = ""
    text_encoder: str = ""
    made_by: str = "mudit"
    on_progress: OnProgress = lambda name, images, total: None
    on_notice: Callable[[str], None] = lambda text: None
    should_stop: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}, expected at least 1.")


class Sampled(NamedTuple):
    """What was drawn.

    Attributes:
        num_images: Of each run, in what was written.
        widths: The models'.
        path: What was written.
    """

    num_images: int
    widths: tuple[int, ...]
    path: Path


def sample_runs(
    folders: Sequence[Path], out: Path, config: SampleConfig, job: SampleJob | None = None
) -> Sampled:
    """Draw samples of one run, or of several from the same noise, or what is left of them.

    Args:
        folders: The runs'.
        out: A folder; or a file: `.npz` for the samples of one run, else a picture of some. A
            picture is made at one go; for the others the same call goes on where it stopped.
        config: Which samples.
        job: How it is done.

    Raises:
        ConfigMismatchError: `out` holds samples of another config.
        DataError: One of `folders` is no finished run, or a file in `out` is damaged.
        EnvironmentFailure: The disk is full, `out` cannot be written, or the device is not there.
        Interrupted: `job.should_stop` said so.
        UsageError: The models cannot be asked for this, or cannot stand beside each other.
    """
    job = job or SampleJob()
    if len(folders) > 1 and config.per_class is None and config.num_samples is None:
        config = dataclasses.replace(config, per_class=_PER_CLASS_BESIDE)
    kind = _kind(out, len(folders))
    sources = open_sources(folders, config)
    widths = tuple(source.run.model.width for source in sources)
    if kind == "picture":
        return Sampled(_picture(sources, out, job), widths, out)
    if kind == "npz":
        _npz(sources[0], out, job)
    elif len(sources) == 1:
        _folder(sources[0], out, job)
    else:
        _side_by_side(sources, out, job)
    return Sampled(len(sources[0].asked.labels), widths, out)


def _kind(out: Path, runs: int) -> Literal["picture", "npz", "folder"]:
    ending = out.suffix.lower()
    if out.is_dir() or not ending:
        if out.is_file():
            raise UsageError(f"--out {out} is a file, expected a folder or a new name.")
        return "folder"
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} of {out} does not exist; make it first.")
    if ending == ".npz":
        if runs > 1:
            raise UsageError(
                f"--out {out}: one .npz holds the samples of one run, and there are {runs}. Give a "
                "folder, which gets an .npz for each, or a picture, e.g. side_by_side.png."
            )
        return "npz"
    if Image.registered_extensions().get(ending) not in Image.SAVE:
        raise UsageError(
            f"--out {out}: {ending!r} is no image format; use e.g. .png for a picture, .npz, or "
            "the name of a folder without a dot."
        )
    return "picture"


def _picture(sources: Sequence[Source], out: Path, job: SampleJob) -> int:
    """A sheet alone: no more is drawn than it shows. Returns how many of each run."""
    rows = _rows(sources)
    numbers = sorted(number for row in rows for number in row)
    total = len(sources[0].asked.labels)
    if len(numbers) < total:
        job.on_notice(
            f"{out.name} has room for {len(numbers):,} of the {total:,} images, and no more are "
            "drawn; --out FOLDER or FILE.npz draws all."
        )
    try:
        images = [
            dict(zip(numbers, np.concatenate(list(_batches(source, numbers, job)))))
            for source in sources
        ]
    except Interrupted:
        raise Interrupted(
            f"stopped before {out} was drawn. A picture is made at one go; --out FOLDER goes on "
            "where it stopped."
        ) from None
    _save_sheet(sources, rows, images, out, made_by=job.made_by)
    return len(numbers)


def _npz(source: Source, path: Path, job: SampleJob) -> None:
    """The samples alone; batches lie in a folder beside it until all are there."""
    work = path.with_name(f"{path.name}.parts")
    if path.exists():
        refuse_other_config(path, open_npz(path).config, source.claim, option=_OPTION)
        if not (work / "config.json").exists():
            return  # else it was stopped between the two lines below
    with _workplace(work):
        if not path.exists():
            _draw(source, path, Parts(work), job, claimed=work)
    shutil.rmtree(work)


def _folder(source: Source, folder: Path, job: SampleJob) -> Stored:
    """A folder of one run."""
    path, parts = folder / "samples.npz", Parts(folder / "parts")
    total = len(source.asked.labels)
    with_files = total <= MOST_FILES if job.files is None else job.files
    pictures = folder / "images" if with_files else None
    with _workplace(folder):
        if path.exists():
            refuse_other_config(folder, open_npz(path).config, source.claim, option=_OPTION)
        else:
            _draw(source, path, parts, job, claimed=folder, pictures=pictures)
        parts.drop()
        stored = open_npz(path)
        if pictures is not None:
            _save_pictures(source, 0, stored.images, pictures, job.made_by, missing=True)
        elif job.files is None:
            job.on_notice(
                f"no single pictures of {total:,} images (more than {MOST_FILES:,}); --files true "
                "writes them."
            )
        _write_metadata(source, folder)
        rows = _rows([source])
        shown = sum(map(len, rows))
        if shown < total:
            job.on_notice(f"grid.png shows {shown:,} of the {total:,} images.")
        _save_sheet([source], rows, [stored.images], folder / "grid.png", made_by=job.made_by)
    return stored


def _side_by_side(sources: Sequence[Source], out: Path, job: SampleJob) -> None:
    """A folder for each run, and a sheet of all."""
    with _workplace(out):
        claim = {source.name: json.loads(source.claim) for source in sources}
        claim_folder(out, json.dumps(claim, indent=1, ensure_ascii=False), option=_OPTION)
        stored = [_folder(source, out / source.name.replace("/", "-"), job) for source in sources]
        images = [one.images for one in stored]
        _save_sheet(sources, _rows(sources), images, out / "side_by_side.png", made_by=job.made_by)


def _draw(
    source: Source,
    path: Path,
    parts: Parts,
    job: SampleJob,
    *,
    claimed: Path,
    pictures: Path | None = None,
) -> None:
    """Draw what is missing, then put the parts together."""
    if (claimed / "config.json").exists():
        claim_folder(claimed, source.claim, option=_OPTION)
    done, total = parts.count, len(source.asked.labels)
    for images in _batches(source, range(done, total), job, done=done) if done < total else ():
        claim_folder(claimed, source.claim, option=_OPTION)  # what cannot be drawn claims nothing
        if pictures is not None:
            _save_pictures(source, done, images, pictures, job.made_by)
        parts.add(done, images)
        done += len(images)
    write_npz(path, parts, source.asked.labels, source.claim)


def _batches(
    source: Source, numbers: Sequence[int], job: SampleJob, *, done: int = 0
) -> Iterator[NDArray[np.uint8]]:
    return batches(
        source,
        numbers,
        batch_size=job.batch_size,
        device=job.device,
        vae=job.vae,
        text_encoder=job.text_encoder,
        on_progress=job.on_progress,
        should_stop=job.should_stop,
        done=done,
    )


@contextmanager
def _workplace(folder: Path) -> Iterator[None]:
    """Hold a folder that is new, empty or a job's; one where nothing was begun is taken away."""
    existed = folder.is_dir()
    entries = {entry.name for entry in folder.iterdir()} if existed else set()
    if entries - {".lock"} and "config.json" not in entries:
        raise UsageError(
            f"{folder} is not empty and holds no samples of `mudit sample`. Choose another folder "
            f"with {_OPTION}."
        )
    with exclusive(folder, option=_OPTION):
        try:
            yield
        except BaseException:
            if not existed and not (folder / "config.json").exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _save_pictures(
    source: Source,
    start: int,
    images: NDArray[np.uint8],
    folder: Path,
    made_by: str,
    *,
    missing: bool = False,
) -> None:
    """Single pictures of samples `start` and on; `missing`: only those that are not there."""
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        for number, image in enumerate(images, start=start):
            path = folder / _file(number)
            if not (missing and path.exists()):
                save_picture(image, path, source.metadata(number, made_by=made_by))


def _file(number: int) -> str:
    return f"{number:06}.png"


def _write_metadata(source: Source, folder: Path) -> None:
    def write(aside: Path) -> None:
        with aside.open("w", encoding="utf-8") as lines:
            for number in range(len(source.asked.labels)):
                row = source.row(number)
                # A job that was to write them may have been stopped, and go on without.
                if (folder / "images" / _file(number)).exists():
                    row["file"] = f"images/{_file(number)}"
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")

    write_whole(folder / "metadata.jsonl", write)


def _rows(sources: Sequence[Source]) -> list[list[int]]:
    """The samples on a sheet: a class or prompt a row, or the first ones where that is no use."""
    first = sources[0]
    size = first.image_size
    by_label = len(sources) > 1 or first.config.num_samples is None
    rows = sheet_numbers(first.asked.labels, by_label=by_label, size=size, models=len(sources))
    kinds = len(np.unique(first.asked.labels))
    if len(sources) == 1 and by_label and kinds > len(rows):
        return sheet_numbers(first.asked.labels, by_label=False, size=size)
    return rows


def _save_sheet(
    sources: Sequence[Source],
    rows: Sequence[Sequence[int]],
    images: Sequence[Mapping[int, NDArray[np.uint8]] | NDArray[np.uint8]],
    path: Path,
    *,
    made_by: str,
) -> None:
    first, titles = sources[0], []
    for source in sources if len(sources) > 1 else ():
        name = parametrization_name(source.run.parametrization.parametrization)
        titles.append(f"{source.name}\n{name}, width {source.run.model.width}")
    labels = [{int(first.asked.labels[number]) for number in row} for row in rows]
    named = all(len(one) == 1 for one in labels) and len(set(map(frozenset, labels))) == len(rows)
    facts = first.facts
    guidance = f"guidance {facts['cfg_scale']:g}" if facts["cfg_scale"] != 1 else "no guidance"
    sheet = Sheet(
        titles=tuple(titles),
        labels=tuple(first.asked.name(one.pop()) for one in labels) if named else (),
        cells=tuple(tuple(tuple(found[i] for i in row) for row in rows) for found in images),
        note=f"seed {facts['seed']}, {facts['steps']} steps of {facts['method']}, {guidance}",
    )
    picture = draw_sheet(sheet)
    form = Image.registered_extensions()[path.suffix.lower()]
    options = {"pnginfo": png_text(facts | {"made_by": made_by})} if form == "PNG" else {}
    write_whole(path, lambda aside: picture.save(aside, format=form, **options))

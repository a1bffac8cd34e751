from __future__ import annotations

import pytest

from mudit.report.modelmap import draw_model, model_info, multipliers
from mudit.report.structure import collapse, copies_of, ranges, without_common_prefix
from mudit.report.theme import LIGHT, new_figure, type_style


def names(rows):
    return [(row.name, row.copies) for row in rows]


def test_equal_numbered_modules_become_one(plan_row):
    rows = [plan_row("embed.weight", "input")]
    rows += [plan_row(f"blocks.{i}.{part}.weight") for i in range(12) for part in ("attn", "mlp")]
    assert names(collapse(rows)) == [
        ("embed.weight", 1),
        ("blocks.0–11.attn.weight", 12),
        ("blocks.0–11.mlp.weight", 12),
    ]


def test_modules_that_differ_in_anything_but_name_and_scale_stay_apart(plan_row):
    rows = [plan_row(f"blocks.{i}.weight") for i in range(4)]
    rows[2] = plan_row("blocks.2.weight", shape=(2, 2))
    rows[3] = plan_row("blocks.3.weight", init_rms=0.25)
    assert names(collapse(rows)) == [("blocks.0–1,3.weight", 3), ("blocks.2.weight", 1)]
    assert collapse(rows)[0].init_rms == (0.25, 0.5)


def test_a_last_block_with_fewer_weights_stays_apart(plan_row):
    rows = [plan_row(f"b.{i}.{part}") for i in range(3) for part in "xy"][:-1]
    assert names(collapse(rows)) == [("b.0–1.x", 2), ("b.0–1.y", 2), ("b.2.x", 1)]


def test_repetition_within_repetition_multiplies(plan_row):
    rows = [plan_row(f"stages.{i}.{j}.weight") for i in range(2) for j in range(3)]
    assert names(collapse(rows)) == [("stages.0–1.0–2.weight", 6)]


def test_a_sequential_of_different_layers_is_not_collapsed(plan_row):
    rows = [plan_row("mlp.0.weight", "input"), plan_row("mlp.2.weight")]
    assert names(collapse(rows)) == [("mlp.0.weight", 1), ("mlp.2.weight", 1)]


def test_ranges_and_back():
    assert ranges([0, 1, 2, 3, 5, 9, 8]) == "0–3,5,8–9"
    assert copies_of("0–3,5,8–9") == 7
    assert copies_of("3") == 1
    assert copies_of("blocks") == copies_of("3d_conv") == copies_of("²") == copies_of("") == 0


def test_common_prefixes_go_but_numbers_and_last_names_stay(plan_row):
    rows = collapse([plan_row("module.dit.a.weight"), plan_row("module.dit.b.weight")])
    assert names(without_common_prefix(rows)) == [("a.weight", 1), ("b.weight", 1)]
    numbered = collapse([plan_row(f"blocks.{i}.weight") for i in range(2)])
    assert names(without_common_prefix(numbered)) == [("0–1.weight", 2)]
    alone = collapse([plan_row("a.b.weight")])
    assert names(without_common_prefix(alone)) == [("weight", 1)]


def test_before_in_and_after_the_repeated_modules(study_contents):
    info = model_info(study_contents())
    assert info.flow
    titles = [[(card.title, card.copies) for card in column] for column in info.columns]
    assert titles == [[("embed", 1)], [("blocks.0–2", 3)], [("final", 1)]]
    assert info.roles == ("input", "hidden", "output", "scalar")
    (readout,) = info.columns[2][0].boxes
    assert (readout.role, readout.companions) == ("output", (("bias", "scalar"),))
    assert readout.multipliers == ("lr ×1/4 · decay ×4",)


def test_a_model_without_repetition_is_balanced_and_has_no_flow(study_contents, plan_row):
    rows = tuple(plan_row(f"part{i}.weight") for i in range(6))
    info = model_info(study_contents(plan_rows=rows))
    assert not info.flow
    assert [len(column) for column in info.columns] == [2, 2, 2]


def test_many_weights_in_one_module_are_boxes_of_their_own(study_contents, plan_row):
    rows = (
        plan_row("attn.in_weight"),
        plan_row("attn.in_bias", "input", "bias"),
        plan_row("attn.out_weight"),
        plan_row("norm.gain", "input", "gain"),
        plan_row("norm.bias", "input", "bias"),
        plan_row("pos", "input", "table", trainable=False),
    )
    info = model_info(study_contents(plan_rows=rows))
    boxes = {box.name: box for column in info.columns for card in column for box in card.boxes}
    assert list(boxes) == ["in_weight", "out_weight", "gain", "pos"]
    assert boxes["in_weight"].companions == (("in_bias", "input"),)
    assert boxes["out_weight"].companions == ()
    assert boxes["gain"].companions == (("bias", "input"),)
    assert (boxes["pos"].role, boxes["pos"].multipliers) == ("frozen", ("not trained",))


def test_multipliers_name_only_what_changes(plan_row):
    assert multipliers(plan_row("a", "input")) == ("as tuned",)
    assert multipliers(plan_row("a", eps_multiplier=4.0, clip_multiplier=0.25)) == (
        "lr ×1/4 · decay ×4",
        "eps ×4 · clip ×1/4",
    )


def test_a_huge_model_is_cut_and_says_so(study_contents, plan_row):
    rows = tuple(plan_row(f"part{i}.weight") for i in range(100))
    info = model_info(study_contents(plan_rows=rows))
    shown = sum(len(card.boxes) for column in info.columns for card in column)
    assert shown + info.omitted == 100
    with type_style(LIGHT):
        texts = [text.get_text() for text in draw_model(info, LIGHT).axes[0].texts]
    assert f"and {info.omitted} more weights: see the table" in texts


def test_no_text_of_a_box_overlaps_another(study_contents, plan_row):
    """The longest lines that real plans have, as the renderer measures them."""
    scales = {"eps_multiplier": 4.0, "clip_multiplier": 0.353553}
    rows = [plan_row(f"transformer_blocks.{i}.norm1_context.linear.weight") for i in range(28)]
    rows += [
        plan_row("time_text_embed.timestep_embedder.linear_1.weight", shape=(1152, 2048)),
        plan_row("final.adaLN_modulation.linear.weight", "output", shape=(6912, 1152), **scales),
        plan_row("final.adaLN_modulation.linear.bias", "scalar", "bias"),
    ]
    with type_style(LIGHT):
        figure = draw_model(model_info(study_contents(plan_rows=tuple(rows))), LIGHT)
        figure.draw_without_rendering()
        extents = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    for index, one in enumerate(extents):
        assert figure.bbox.x0 <= one.x0 < one.x1 <= figure.bbox.x1
        assert not any(one.overlaps(other) for other in extents[:index])


@pytest.mark.parametrize("height", [1.0, 3.0])
def test_figures_have_the_pages_width(height):
    with type_style(LIGHT):
        assert tuple(new_figure(height).get_size_inches()) == (9.0, height)

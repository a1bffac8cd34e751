"""Label dropout and guidance, combined by hand."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from mudit.diffusion import Flow, ObjectiveConfig, check_interval, drop_labels, guided
from mudit.errors import UsageError

NULL = 10
LABELS = torch.tensor([3, 7])


def labelled(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """A network of 2C channels in which everything that it is given leaves a trace."""
    condition = (labels + 1.0).view(-1, 1, 1, 1)
    time = t.view(-1, 1, 1, 1) / 1000
    return torch.cat([condition * x + time, x.square() - condition], dim=1)


def batch(channels: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([5, 900])


def halves(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return labelled(x, t, LABELS), labelled(x, t, torch.full_like(LABELS, NULL))


@pytest.mark.parametrize("cfg_scale", [0.0, 1.5, 4.0])
def test_all_noise_channels_are_guided_and_the_variance_is_conditional(cfg_scale: float) -> None:
    x, t = batch()
    cond, uncond = halves(x, t)
    by_hand = (1 - cfg_scale) * uncond + cfg_scale * cond
    out = guided(labelled, LABELS, NULL, cfg_scale=cfg_scale)(x, t)
    torch.testing.assert_close(out[:, :4], by_hand[:, :4], rtol=1e-5, atol=1e-5)
    assert torch.equal(out[:, 4:], cond[:, 4:])


def test_first_three_leaves_the_fourth_channel_conditional() -> None:
    x, t = batch()
    cond, uncond = halves(x, t)
    out = guided(labelled, LABELS, NULL, cfg_scale=4.0, channels="first_three")(x, t)
    by_hand = 4 * cond[:, :3] - 3 * uncond[:, :3]
    torch.testing.assert_close(out[:, :3], by_hand, rtol=1e-5, atol=1e-5)
    assert torch.equal(out[:, 3:], cond[:, 3:])


def test_the_two_options_differ_in_the_fourth_noise_channel_alone() -> None:
    x, t = batch()
    every = guided(labelled, LABELS, NULL, cfg_scale=4.0)(x, t)
    three = guided(labelled, LABELS, NULL, cfg_scale=4.0, channels="first_three")(x, t)
    differs = [bool((every[:, c] != three[:, c]).any()) for c in range(8)]
    assert differs == [c == 3 for c in range(8)]


def test_a_network_without_variance_is_guided_as_a_whole() -> None:
    x, t = batch()
    cond, uncond = halves(x, t)
    out = guided(lambda *a: labelled(*a)[:, :4], LABELS, NULL, cfg_scale=2.0)(x, t)
    torch.testing.assert_close(out, 2 * cond[:, :4] - uncond[:, :4])


def test_scale_one_is_the_plain_network_at_the_plain_batch() -> None:
    x, t = batch()
    sizes: list[int] = []

    def counting(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(x))
        return labelled(x, t, labels)

    out = guided(counting, LABELS, NULL, cfg_scale=1.0)(x, t)
    assert torch.equal(out, labelled(x, t, LABELS))
    guided(counting, LABELS, NULL, cfg_scale=1.5)(x, t)
    assert sizes == [2, 4]


def test_half_precision_outputs_are_combined_in_float32() -> None:
    x, t = batch()

    def half(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return labelled(x, t, labels).bfloat16()

    cond, uncond = (out.bfloat16().float() for out in halves(x, t))
    out = guided(half, LABELS, NULL, cfg_scale=4.0)(x, t)
    torch.testing.assert_close(out[:, :4], 4 * cond[:, :4] - 3 * uncond[:, :4], rtol=0, atol=1e-4)


def test_three_channels_must_exist() -> None:
    x, t = batch(channels=1)
    network = guided(labelled, LABELS, NULL, cfg_scale=2.0, channels="first_three")
    with pytest.raises(UsageError, match="1 channels; expected at least 3"):
        network(x, t)


@pytest.mark.parametrize("cfg_scale", [1.0, 2.0])
def test_a_batch_of_another_size_is_refused(cfg_scale: float) -> None:
    x, t = batch()
    with pytest.raises(UsageError, match="for 2 labels got a batch of 1"):
        guided(labelled, LABELS, NULL, cfg_scale=cfg_scale)(x[:1], t[:1])


# --- intervals ----------------------------------------------------------------------------------


def level(t: Tensor) -> Tensor:
    return t / 1000


def counted(sizes: list[int]):  # type: ignore[no-untyped-def]
    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(x))
        return labelled(x, t, labels)

    return network


@pytest.mark.parametrize(
    ("t", "is_guided"), [(0, False), (199, False), (200, True), (700, True), (701, False)]
)
def test_guidance_acts_within_its_interval_alone(t: int, is_guided: bool) -> None:
    """Both ends included; outside, the doubled batch is spared too."""
    x, _ = batch()
    times = torch.full((2,), t)
    sizes: list[int] = []
    options = {"cfg_scale": 1.8, "interval": (0.2, 0.7), "noise_level": level}
    out = guided(counted(sizes), LABELS, NULL, **options)(x, times)  # type: ignore[arg-type]
    everywhere = guided(labelled, LABELS, NULL, cfg_scale=1.8)(x, times)
    assert torch.equal(out, everywhere if is_guided else labelled(x, times, LABELS))
    assert sizes == [4 if is_guided else 2]


def test_samples_of_one_batch_may_lie_inside_and_outside() -> None:
    x, t = batch()
    out = guided(labelled, LABELS, NULL, cfg_scale=2.0, interval=(0.0, 0.5), noise_level=level)
    everywhere = guided(labelled, LABELS, NULL, cfg_scale=2.0)(x, t)
    assert torch.equal(out(x, t)[0], everywhere[0])
    assert torch.equal(out(x, t)[1], labelled(x, t, LABELS)[1])


@pytest.mark.parametrize("time_scale", [1.0, 999.0, 1000.0])
def test_the_ends_of_an_interval_survive_the_rounding_of_float32_times(time_scale: float) -> None:
    """0.7 · 999 / 999 is more than 0.7 in float32."""
    flow = Flow(ObjectiveConfig(kind="flow", time_scale=time_scale))
    x, _ = batch()
    for end in (0.3, 0.7):
        sizes: list[int] = []
        network = guided(
            counted(sizes),
            LABELS,
            NULL,
            cfg_scale=2.0,
            interval=(0.3, 0.7),
            noise_level=flow.noise_level,
        )
        network(x, flow.told(torch.full((2,), end)))
        assert sizes == [4]


def test_scale_one_needs_no_interval() -> None:
    x, t = batch()
    options = {"interval": (0.0, 1.0), "noise_level": level}
    out = guided(labelled, LABELS, NULL, cfg_scale=1.0, **options)(x, t)  # type: ignore[arg-type]
    assert torch.equal(out, labelled(x, t, LABELS))


@pytest.mark.parametrize("interval", [(0.7, 0.2), (-0.1, 0.5), (0.5, 1.5), (float("nan"), 1.0)])
def test_impossible_intervals_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"interval is \[.* the lower one first"):
        check_interval(interval)
    with pytest.raises(UsageError, match="two noise levels"):
        guided(labelled, LABELS, NULL, cfg_scale=2.0, interval=interval, noise_level=level)


def test_an_interval_needs_a_noise_level() -> None:
    with pytest.raises(UsageError, match="without noise_level"):
        guided(labelled, LABELS, NULL, cfg_scale=2.0, interval=(0.0, 0.7))


def test_unknown_channels_are_refused(unchecked_types: None) -> None:
    with pytest.raises(UsageError, match="channels=3; expected 'all' or 'first_three'"):
        guided(labelled, LABELS, NULL, cfg_scale=2.0, channels=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_labels_are_dropped_at_the_given_rate(probability: float) -> None:
    """Clopper-Pearson: fails by chance with probability 1e-6 at most."""
    labels = torch.arange(20_000) % 10
    kept = drop_labels(labels, NULL, probability, generator=torch.Generator().manual_seed(3))
    dropped = kept == NULL
    assert torch.equal(kept[~dropped], labels[~dropped])
    test = scipy.stats.binomtest(int(dropped.sum()), 20_000)
    low, high = test.proportion_ci(confidence_level=1 - 1e-6, method="exact")
    assert low < probability < high


def test_the_ends_of_the_range_drop_none_and_all() -> None:
    labels = torch.arange(1000) % 10
    before = labels.clone()
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(drop_labels(labels, NULL, 0.0, generator=generator), labels)
    assert bool((drop_labels(labels, NULL, 1.0, generator=generator) == NULL).all())
    assert torch.equal(labels, before)


def test_the_generator_advances_alike_whatever_the_probability() -> None:
    states = []
    for probability in (0.0, 0.1, 1.0):
        generator = torch.Generator().manual_seed(0)
        drop_labels(LABELS, NULL, probability, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_probabilities_out_of_range_are_refused(probability: float) -> None:
    with pytest.raises(UsageError, match="expected 0 to 1"):
        drop_labels(LABELS, NULL, probability, generator=torch.Generator())

"""Initial RMS read off the initialisers: against closed forms and against samples."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from mudit.errors import ParametrizationError
from mudit.parametrization.initial import observe, root_mean_square

N = 200


class One(nn.Module):
    def __init__(self, init) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(N, N))
        with torch.no_grad():
            init(self.weight)


def _erfinv_truncated(w):
    """timm's and older torch's trunc_normal_: erfinv of a uniform, then clamp."""
    low, high = (math.erf(edge / math.sqrt(2)) for edge in (-2.0, 2.0))
    w.uniform_(low, high).erfinv_().mul_(0.02 * math.sqrt(2)).add_(0.0).clamp_(-0.04, 0.04)


def _rows(w):
    for part in w.chunk(4):
        nn.init.normal_(part, std=0.5)
    w[: N // 4].zero_()


def _truncated_std(std, a, b):
    return float(stats.truncnorm(a / std, b / std, scale=std).std())


CASES = {
    "zeros": (lambda w: w.zero_(), 0.0),
    "ones": (nn.init.ones_, 1.0),
    "fill": (lambda w: w.fill_(-0.3), 0.3),
    "normal": (lambda w: w.normal_(0.0, 0.02), 0.02),
    "normal with a mean": (lambda w: w.normal_(3.0, 4.0), 5.0),
    "uniform": (lambda w: w.uniform_(-0.5, 0.5), 0.5 / math.sqrt(3)),
    "uniform off centre": (lambda w: w.uniform_(0.0, 1.0), math.sqrt(1 / 3)),
    "xavier": (nn.init.xavier_uniform_, math.sqrt(2 / (2 * N))),
    "xavier of a view": (lambda w: nn.init.xavier_uniform_(w.view(N // 2, -1)), None),
    "kaiming": (lambda w: nn.init.kaiming_normal_(w, a=1), N**-0.5),
    "kaiming default": (lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)), (3 * N) ** -0.5),
    "randn over sqrt(n)": (lambda w: w.copy_(torch.randn(N, N) / N**0.5), N**-0.5),
    "data assignment": (lambda w: setattr(w, "data", 0.1 * torch.randn(N, N)), 0.1),
    "trunc_normal": (lambda w: nn.init.trunc_normal_(w, std=0.02), 0.02),
    "trunc_normal, tight": (
        lambda w: nn.init.trunc_normal_(w, std=1.0, a=-0.5, b=0.5),
        _truncated_std(1.0, -0.5, 0.5),
    ),
    "trunc_normal, by erfinv": (_erfinv_truncated, _truncated_std(0.02, -0.04, 0.04)),
    "orthogonal": (lambda w: nn.init.orthogonal_(w, gain=2.0), 2.0 / math.sqrt(N)),
    "in parts": (_rows, 0.5 * math.sqrt(3 / 4)),
    "scaled afterwards": (lambda w: nn.init.normal_(w).mul_(0.5).div_(2).neg_(), 0.25),
}


@pytest.mark.parametrize("case", CASES)
def test_exact_scale(case: str) -> None:
    init, expected = CASES[case]
    scale = observe(lambda n: One(init), N).scales["weight"]
    assert scale.exact, scale
    if expected is not None:
        assert scale.rms == pytest.approx(expected, rel=1e-6)
    torch.manual_seed(0)
    # A sample of 40,000 values has an RMS within 3 % of its law's, at more than 6 standard errors.
    assert root_mean_square(One(init).weight) == pytest.approx(scale.rms, rel=0.03, abs=1e-12)


def _clamped(w):
    nn.init.trunc_normal_(w, std=1.0)
    w.clamp_(-0.5, 0.5)


def _int_view(w):
    nn.init.normal_(w)
    w.view(torch.int32)[: N // 2].fill_(2**29 + 2**28)


# Each looks like something that is known, and is not.
TRAPS = {
    "sparse_": lambda w: nn.init.sparse_(w, 0.9),
    "clamped inside its bounds": _clamped,
    "torch.normal of a mean tensor": lambda w: w.copy_(torch.normal(torch.zeros(N, N), 0.02)),
    "torch.normal of a size": lambda w: w.copy_(torch.normal(0.0, 0.02, size=(N, N))),
    "part of a concatenation": lambda w: w.copy_(
        torch.cat([torch.randn(N, N), torch.zeros(N, N)])[N:]
    ),
    "rounded": lambda w: w.copy_(torch.rand(N, N).mul(3).long()),
    "another dtype's view": _int_view,
    "floor division": lambda w: w.copy_(torch.rand(N, N).mul(3).div(1, rounding_mode="floor")),
    "a drawn factor": lambda w: w.fill_(1.0).mul_(torch.rand(1)),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_traps_are_estimated(trap: str) -> None:
    torch.manual_seed(0)
    scale = observe(lambda n: One(TRAPS[trap]), N).scales["weight"]
    torch.manual_seed(0)
    actual = root_mean_square(One(TRAPS[trap]).weight)
    assert not scale.exact, scale
    if trap != "a drawn factor":
        assert scale.rms == pytest.approx(actual, rel=0.1)


@pytest.mark.parametrize(
    "init", [lambda w: w.normal_().sin_(), lambda w: w.copy_(torch.randn(N, N).exp())]
)
def test_what_is_not_recognised_is_estimated_and_says_so(init) -> None:
    torch.manual_seed(0)
    scale = observe(lambda n: One(init), N).scales["weight"]
    assert not scale.exact
    assert "estimated" in scale.law
    assert scale.rms == pytest.approx(root_mean_square(One(init).weight), rel=0.05)


def test_constants_computed_on_the_cpu_are_read() -> None:
    table = torch.arange(N * N, dtype=torch.float64, device="cpu").reshape(N, N).sin()
    scale = observe(lambda n: One(lambda w: w.copy_(table)), N).scales["weight"]
    assert scale.exact
    assert scale.rms == pytest.approx(float(table.square().mean().sqrt()), rel=1e-9)


def test_padding_row_is_counted() -> None:
    scale = observe(lambda n: nn.Embedding(10, n, padding_idx=0), N).scales["weight"]
    assert scale.rms == pytest.approx(math.sqrt(0.9), rel=1e-6)


def test_observing_leaves_the_random_state_and_nn_init_alone() -> None:
    before, trunc = torch.get_rng_state(), nn.init.orthogonal_
    observe(lambda n: One(lambda w: w.normal_().sin_()), N)
    assert torch.equal(before, torch.get_rng_state())
    assert nn.init.orthogonal_ is trunc


def test_a_build_that_cannot_run_on_meta_runs_on_the_cpu() -> None:
    class Stubborn(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            std = torch.full((), 0.5).item()  # no item() on meta
            self.weight = nn.Parameter(torch.empty(n, n).normal_(0, std))

    scale = observe(Stubborn, N).scales["weight"]
    assert scale.exact
    assert scale.rms == pytest.approx(0.5)


def test_uninitialised_memory_is_refused_by_name() -> None:
    class Empty(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(n, n).fill_(0).log_().mul_(0))  # NaN

    with pytest.raises(ParametrizationError, match="weight"):
        observe(Empty, N)


@pytest.mark.parametrize("layer", [nn.Linear, nn.LSTM, nn.MultiheadAttention])
def test_torch_layers_are_read_exactly(layer) -> None:
    def build(n: int) -> nn.Module:
        return layer(n, 8 if layer is nn.MultiheadAttention else n)

    torch.manual_seed(0)
    model, seen = build(N), observe(build, N)
    for name, parameter in model.named_parameters():
        scale = seen.scales[name]
        assert scale.exact, name
        bound = 6 / math.sqrt(2 * parameter.numel())
        assert root_mean_square(parameter) == pytest.approx(scale.rms, rel=bound), name

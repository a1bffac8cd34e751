"""The coordinate check on classes of diffusers: 20 steps at three widths under the plan.

Each class is the small configuration of `mudit.models.foreign` with one block, its roles are the
certificate's, and it learns to map one fixed batch to fixed targets. Readouts start at zero, as in
the paper: a random readout adds a term of size n^-1/2 to what the rest is taught, and features of
PixArt's shared adaLN are then seen to change as n^0.27. Under μP the check must pass; under sp (the
control) some feature must be seen to grow. Finished classes are kept in `check_diffusers.jsonl`, so
that the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from machine import RESULTS, describe, publish, quick, table
from torch import Tensor, nn

import mudit
from mudit.models.foreign import ForeignModel, foreign
from mudit.program.tape import tensors_in
from mudit.tuning.coordinate_check import coordinate_check

CLASSES = (
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "SanaTransformer2DModel",
    "CogVideoXTransformer3DModel",
    "LatteTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "CogView3PlusTransformer2DModel",
    "StableAudioDiTModel",
    "WanTransformer3DModel",
    "AllegroTransformer3DModel",
    "TransformerTemporalModel",
    "CogView4Transformer2DModel",
    "EasyAnimateTransformer3DModel",
)
_BASE, _WIDTHS = 64, (128, 320, 768)  # about; the next that a class takes
_STEPS, _LR = 20, 2**-8
_SEEDS = 32
# With 32 or 40 seeds the first three were INCONCLUSIVE: some slopes near 0 had intervals that
# reached beyond ±0.2. The others were begun with more for that reason.
_MORE_SEEDS = {
    "FluxTransformer2DModel": 48,
    "SanaTransformer2DModel": 48,
    "CogView3PlusTransformer2DModel": 80,
    "LTXVideoTransformer3DModel": 40,
    "StableAudioDiTModel": 40,
    "AllegroTransformer3DModel": 40,
    "TransformerTemporalModel": 80,
    "CogView4Transformer2DModel": 80,
    "EasyAnimateTransformer3DModel": 80,
}
_ROWS = RESULTS / "check_diffusers.jsonl"


def model_of(name: str) -> ForeignModel:
    """The small configuration, with one block of each kind."""
    small = foreign(name)
    layers = {"num_layers": 1} if "num_layers" in small.overrides else {}
    return ForeignModel(name, {**small.overrides, **layers})


def near(model: ForeignModel, width: int) -> int:
    """The next width that the class takes."""
    return model.entry.unit * math.ceil(width / model.entry.unit)


def widths_of(model: ForeignModel) -> tuple[int, ...]:
    """Three widths near `_WIDTHS`."""
    return tuple(near(model, width) for width in _WIDTHS)


def loss_of(model: ForeignModel) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The squared error of the model's first output on one batch, whatever the generator."""
    width = min(widths_of(model))

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        del generator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            given = model.inputs(width)
        out = next(iter(tensors_in(net(**given))))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            target = torch.randn(out.shape)
        return (out.float() - target).square().mean()

    return loss


def idle_parameters(model: ForeignModel) -> list[str]:
    """Parameters that the loss does not depend on, even where no weight is zero."""
    torch.manual_seed(0)
    net = model.build(min(widths_of(model)))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    loss_of(model)(net, torch.Generator()).backward()
    return [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]


def checked(name: str, seeds: int) -> dict[str, Any]:
    """Check one class."""
    start = time.perf_counter()
    model = model_of(name)
    widths = widths_of(model)
    certificate = mudit.certify(model.build, model.inputs, foreign(name).widths)
    plan = mudit.plan(
        model.build,
        width=widths[-1],
        base_width=near(model, _BASE),
        certificate=certificate,
        zero_readout=True,
    )
    found = coordinate_check(
        model.build,
        loss_of(model),
        plan=plan,
        widths=widths,
        steps=_STEPS,
        seeds=seeds,
        lr=_LR,
        unused=idle_parameters(model),
    )
    inside = sum(row.verdict == "PASS" for row in found.rows)
    undecided = sum(row.verdict in ("FAIL", "INCONCLUSIVE") for row in found.rows)
    return {
        "name": name,
        "widths": widths,
        "seeds": seeds,
        "verdict": found.verdict,
        "inside": inside,
        "open": undecided,
        "control": found.control.slope if found.control else None,
        "where": found.control.name if found.control else "",
        "findings": [finding.message for finding in found.findings],
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Check all ten, or one with few seeds for a smoke run."""
    smoke = quick(__doc__)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    machine = describe("mudit", "diffusers")
    kept = _ROWS.read_text(encoding="utf-8").splitlines() if _ROWS.exists() and not smoke else []
    rows = {row["name"]: row for row in map(json.loads, kept)}
    for name in CLASSES[:1] if smoke else CLASSES:
        if name not in rows:
            rows[name] = checked(name, 2 if smoke else _MORE_SEEDS.get(name, _SEEDS))
            print(name, rows[name]["verdict"], f"{rows[name]['seconds']:.0f} s", flush=True)
            if not smoke:
                with _ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[name]) + "\n")
    body = table(
        (
            "class",
            "widths",
            ">seeds",
            "verdict",
            ">inside ±0.2",
            ">largest slope under sp",
            ">seconds",
        ),
        (
            (
                f"`{row['name']}`",
                ", ".join(map(str, row["widths"])),
                row["seeds"],
                row["verdict"],
                f"{row['inside']} of {row['inside'] + row['open']}",
                f"n^{row['control']:.2f}, of {row['where']}",
                f"{row['seconds']:.0f}",
            )
            for row in rows.values()
        ),
    )
    said = "".join(f"- `{r['name']}`: {text}\n" for r in rows.values() for text in r["findings"])
    passed = sum(row["verdict"] == "PASS" for row in rows.values())
    publish(
        "check_diffusers",
        title="The coordinate check on classes of diffusers",
        machine=machine,
        body=f"{_STEPS} steps, base lr {_LR:.2g} at width about {_BASE}, one "
        f"fixed batch, zero readouts; intervals are "
        f"simultaneous over all slopes of a class. {passed} of {len(rows)} pass, "
        f"and sp is seen to grow in {sum(r['control'] > 0.4 for r in rows.values())}.\n\n{body}\n"
        f"## Findings\n\n{said or 'None.'}",
        quick=smoke,
    )


if __name__ == "__main__":
    main()

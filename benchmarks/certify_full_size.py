"""Plan and certificate of full-size models, by shapes alone (the meta device).

DiT-XL/2 (width 1152), an MMDiT-like model of width 5120 and depth 16 (diffusers' SD3 class), and
diffusers' default Flux (12 billion parameters), each in a fresh process that has imported torch and
its library: time of `mudit.certify` and of `mudit.plan(..., inputs=...)`, and growth of the
process's peak memory over its peak before. Bars: 10 s each, and 300 MiB.
"""

from __future__ import annotations

import json
import subprocess
import sys

from machine import describe, publish, quick, table

_SECONDS_BAR = 10.0
_MEMORY_BAR = 300.0  # MiB

# In a fresh process. VmHWM, because a child's ru_maxrss begins at its parent's on Linux.
_SCRIPT = """
import json, re, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import mudit
from mudit.models import builder, example_inputs, preset
from mudit.models.foreign import ForeignModel

def peak_mib():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s*(\\d+)", status.read())[1]) / 1024

name, certificate_only = sys.argv[1], sys.argv[2] == "certify"
if name == "DiT-XL/2":
    config = preset(name)
    build, inputs, widths = builder(config), example_inputs(config), (288, 576, 1152)
elif name == "MMDiT 5120":
    import diffusers
    model = ForeignModel("SD3Transformer2DModel", dict(
        num_layers=16, num_attention_heads=80, attention_head_dim=64, caption_projection_dim=5120))
    model.build(512)
    build, inputs, widths = model.build, model.inputs, (512, 1920, 5120)
else:
    import diffusers
    model = ForeignModel("FluxTransformer2DModel")
    with torch.device("meta"):
        diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    build, inputs, widths = model.build, model.inputs, (768, 1536, 3072)
import mudit.parametrization
before, start = peak_mib(), time.perf_counter()
if certificate_only:
    found = mudit.certify(build, inputs, widths, device="meta")
    result = {"verdict": found.verdict, "ops": len(found.ops), "weights": len(found.weights)}
else:
    made = mudit.plan(build, width=widths[-1], base_width=widths[0], inputs=inputs)
    result = {"verdict": "", "ops": 0, "weights": len(made.rows)}
seconds, after = time.perf_counter() - start, peak_mib()
print(json.dumps(result | {"seconds": seconds, "mib": after - before}))
"""
CASES = ("DiT-XL/2", "MMDiT 5120", "Flux")


def measure(name: str, what: str) -> dict[str, float]:
    """One fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, name, what], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure all three, both ways."""
    smoke = quick(__doc__)
    machine = describe("mudit", "diffusers")
    rows = []
    for name in CASES[:1] if smoke else CASES:
        for what in ("certify", "plan"):
            found = measure(name, what)
            good = found["seconds"] <= _SECONDS_BAR and found["mib"] <= _MEMORY_BAR
            rows.append(
                (
                    name,
                    what,
                    found["verdict"],
                    found["weights"],
                    found["ops"] or "",
                    f"{found['seconds']:.1f}",
                    f"{found['mib']:.0f}",
                    "PASS" if good else "FAIL",
                )
            )
    header = ("model", "what", "certificate", ">parameters", ">ops", ">seconds", ">MiB", "bar")
    publish(
        "certify_full_size",
        title="Full-size models by shapes alone",
        machine=machine,
        body=f"Bars: {_SECONDS_BAR:.0f} s, {_MEMORY_BAR:.0f} MiB over the imports. One thread.\n\n"
        + table(header, rows),
        quick=smoke,
    )


if __name__ == "__main__":
    main()

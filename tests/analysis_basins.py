"""Synthetic grids of runs whose basins, noise and drift are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from mudit.analysis.basin import Run, linex

SIZES = (32, 64, 128, 256)


def grid(
    *,
    sizes: tuple[int, ...] = SIZES,
    values: Any = range(-9, -3),
    seeds: int = 3,
    optimum: float = -6.3,
    drift: float = 0.0,
    curvature: float = 0.01,
    skew: float = 0.0,
    gain: float = 0.02,
    noise: float = 0.002,
    luck: float = 0.01,
    cliff: float = np.inf,
    seed: int = 0,
) -> list[Run]:
    """Runs of basins: loss 0.3 - gain·l + c·g(x - m; k) with m = optimum + drift·l, l = log2 size.

    Seeds' luck, one draw for a size and seed, is added to all its losses; `cliff` is how far above
    the bottom runs diverge.
    """
    rng = np.random.default_rng(seed)
    runs = []
    for size in sizes:
        doublings = np.log2(size / sizes[0])
        bottom = optimum + drift * doublings
        lucks = rng.normal(0, luck, seeds)
        for x in values:
            for number, own in enumerate(lucks):
                loss = 0.3 - gain * doublings + curvature * float(linex(x - bottom, skew))
                loss += own + rng.normal(0, noise)
                diverged = x > bottom + cliff
                runs.append(
                    Run(
                        size=size,
                        log2_hp=float(x),
                        seed=number,
                        loss=np.nan if diverged else float(loss),
                    )
                )
    return runs

"""From a verify study: which proxy would have been enough."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mudit.analysis.basin import Run
from mudit.analysis.proxies import Advice, Proxy, Task, advise
from mudit.errors import DataError
from mudit.records import TrialRecord, ValidationRecord, finite, read_records
from mudit.report import save_advice_figure
from mudit.report.verify_words import problem
from mudit.training import write_text
from mudit.tuning.grid import VerifyConfig, point_of
from mudit.tuning.verify import initial_loss, read_verdict


@dataclass(frozen=True, kw_only=True)
class StudyAdvice:
    """What a verify study says about proxies.

    Attributes:
        config: The study.
        advice: The proxies and the one to take.
        problem: Why the target's own optimum is not known; empty if it is.
    """

    config: VerifyConfig
    advice: Advice
    problem: str = ""

    def to_markdown(self) -> str:
        """The recommendation and a table of all proxies."""
        config, advice = self.config, self.advice
        lines = [
            f"# Which proxy would have been enough: {config.hp} across {config.across}\n",
            self.recommendation() + "\n",
            f"Target: {config.across} {config.sizes[-1]}. A search has all tried values and one "
            "seed. Regret: loss lost at the target by what the proxy chose, in units of what the "
            "axis' last doubling gained; mean over seeds, and the worst seed's upper 95 % bound.\n",
            f"| {config.across} | steps | search's cost | chosen | regret | worst | front |",
            "| --: | --: | --: | --- | --: | --: | --- |",
            *(self._row(proxy) for proxy in advice.proxies),
        ]
        return "\n".join(lines) + "\n"

    def _row(self, proxy: Proxy) -> str:
        chosen = ", ".join("diverged" if x is None else f"2^{x:g}" for x in proxy.choices)
        mark = "yes" if proxy.on_front else ""
        mark = "recommended" if proxy == self.advice.recommended else mark
        size = proxy.task.steps if self.config.across == "steps" else proxy.task.size
        return (
            f"| {size} | {proxy.task.steps} | {proxy.cost:.1%} | {chosen} | "
            f"{_share(proxy.regret)} | {_share(proxy.worst)} | {mark} |"
        )

    def recommendation(self) -> str:
        """In a sentence."""
        config, best = self.config, self.advice.recommended
        if self.advice.gain <= 0:
            return (
                f"The last doubling of {config.across} gained nothing, so there is nothing to "
                "compare a regret with."
            )
        if best is None:
            return (
                "No smaller proxy would have been enough: none's every choice is within 10 % of a "
                "doubling's gain of the best." + self._caution()
            )
        size = f"{config.across} {best.task.size}"
        if config.across != "steps":
            size += f", {best.task.steps} steps"
        return (
            f"Take {size}: a search over the same values costs {best.cost:.1%} of training the "
            f"target once, and what every seed chose there loses at most {_share(best.worst)} of "
            "what a doubling gains." + self._caution()
        )

    def _caution(self) -> str:
        return f" With care: at the target {self.problem}." if self.problem else ""

    def save(self, folder: Path) -> None:
        """Write `advice.md`, `advice.json` and the figure into a folder."""
        write_text(folder / "advice.md", self.to_markdown())
        fields = finite(dataclasses.asdict(self.advice))
        write_text(folder / "advice.json", json.dumps(fields, indent=1, allow_nan=False) + "\n")
        save_advice_figure(self.advice, folder, axis=self.config.across)


def _share(share: float) -> str:
    return "∞" if math.isinf(share) else f"{share:.1%}"


def advise_study(folder: Path) -> StudyAdvice:
    """Judge all proxies that the records of a finished verify study hold, and write the outcome.

    A proxy is a size of the axis and, where the study validated on the way
    (`training.validation_steps`) at a constant learning rate, a number of steps.

    Raises:
        DataError: The folder holds no finished verify study, or none that proxies can be judged by.
    """
    found = read_verdict(folder)
    config, records = found.config, found.records["mup"]
    grid: list[Run] = []
    proxies: dict[Task, list[Run]] = {}
    flops: dict[Task, dict[int, float]] = {}
    for record in records:
        point, initial = point_of(config, record), initial_loss(config, record)
        for steps, loss in _losses(config, folder, record):
            run = Run(
                size=point.size,
                log2_hp=math.log2(point.value),
                seed=point.seed,
                loss=loss,
                initial=initial,
            )
            size = steps if config.across == "steps" else point.size
            if config.across == "steps" and steps != record.steps:
                continue  # shorter runs are there themselves
            task = Task(size=size, steps=steps)
            proxies.setdefault(task, []).append(run)
            by_seed = flops.setdefault(task, {})
            spent = record.train_flops * steps / record.steps
            by_seed[point.seed] = by_seed.get(point.seed, 0.0) + spent
            if steps == record.steps:
                grid.append(run)
    largest = [r.train_flops for r in records if point_of(config, r).size == config.sizes[-1]]
    costs = {
        task: sum(by_seed.values()) / len(by_seed) / max(largest) for task, by_seed in flops.items()
    }
    try:
        advice = StudyAdvice(
            config=config,
            advice=advise(grid, proxies, costs),
            problem=problem(found.main.basins[-1]),
        )
    except ValueError as error:
        raise DataError(f"{folder}: proxies cannot be judged, {error}.") from None
    advice.save(folder)
    return advice


def _losses(config: VerifyConfig, folder: Path, record: TrialRecord) -> Iterator[tuple[int, float]]:
    """Steps and the bank's loss on the raw weights: as a shorter run would have them, and last."""
    if config.training.schedule.kind == "constant" and config.training.validation_steps:
        for row in read_records(folder / record.key / "records.jsonl"):
            if not isinstance(row, ValidationRecord) or row.weights != "raw":
                continue
            if row.step < record.steps:
                yield row.step, row.denoising
    yield record.steps, math.nan if record.score is None else record.score

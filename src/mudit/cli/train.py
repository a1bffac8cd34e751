"""`mudit train`: the target task alone."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.parsing import parse_study, study_parser, take_recipe
from mudit.cli.progress import Terminal
from mudit.errors import UsageError
from mudit.tuning import train_target


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = study_parser(
        "train",
        "Train the target task (--target.width, .batch_size, .steps) with the base HPs given by "
        "--hps.*, without a search. --folder is the run's own; the same command again resumes. "
        "With --recipe NAME: the recipe's target with the HPs that its search should find; with "
        "--baseline besides: the one tuned by hand under sp, where the recipe has one.",
    )
    parser.set_defaults({"folder": "runs/train"})
    baseline = "--baseline" in argv
    recipe, options = take_recipe([option for option in argv if option != "--baseline"])
    if baseline and recipe is None:
        raise UsageError("--baseline is a recipe's: give --recipe NAME, too.")
    base = None if recipe is None else recipe.training(baseline=baseline)
    config = parse_study(parser, options, base)
    if recipe is not None:
        recipe.require_data(config)
    with Terminal() as terminal:
        record = train_target(config, listener=terminal)
    if record.score is None:
        print(f"{config.folder}: diverged at step {record.diverged_step}")
        return 1
    print(f"{config.folder}: validation loss {record.score:.5f} after {record.steps} steps")
    return 0

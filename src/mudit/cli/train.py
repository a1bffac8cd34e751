"""`mudit train`: the target task alone."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.parsing import parse_study, study_parser
from mudit.cli.progress import Terminal
from mudit.tuning import train_target


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = study_parser(
        "train",
        "Train the target task (--target.width, .batch_size, .steps) with the base HPs given by "
        "--hps.*, without a search. --folder is the run's own; the same command again resumes.",
    )
    parser.set_defaults({"folder": "runs/train"})
    config = parse_study(parser, argv)
    with Terminal() as terminal:
        record = train_target(config, listener=terminal)
    if record.score is None:
        print(f"{config.folder}: diverged at step {record.diverged_step}")
        return 1
    print(f"{config.folder}: validation loss {record.score:.5f} after {record.steps} steps")
    return 0

"""`mudit report`: a finished study's page, made again from its records."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mudit.cli.parsing import make_parser, parse
from mudit.cli.texts import transfer_line, verdict_text
from mudit.cli.verify import CODES
from mudit.training import open_splits
from mudit.tuning import (
    is_grid,
    read_branch,
    read_control,
    read_study,
    read_verdict,
    write_study_report,
    write_verdict,
)


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser("report", "Write the report of a finished study again, from its records.")
    parser.add_argument("folder", type=str, help="the study's folder")
    folder = Path(parse(parser, argv).folder)
    command = shlex.join(["mudit", "report", *argv])
    if is_grid(folder):
        found = read_verdict(folder)
        write_verdict(found, command=command)
        print(verdict_text(found))
        return CODES[found.verdict]
    config = read_study(folder)
    splits = open_splits(config.data)
    result = write_study_report(
        config,
        splits,
        read_branch(config, splits, "mup"),
        read_control(config, splits),
        command=command,
    )
    print(transfer_line(result))
    return 0

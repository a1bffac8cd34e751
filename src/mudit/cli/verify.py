"""`mudit verify`: Algorithms 1 to 3 with a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mudit.cli.parsing import parse_experiment, study_parser, without_secrets
from mudit.cli.progress import Terminal
from mudit.cli.texts import grid_text, verdict_text
from mudit.tuning import VerifyConfig, preview_grid, verify

CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 4}
_FLAGS = ("--dry-run", "--extend")


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = study_parser(
        "verify",
        "Does the best value of a base HP stay where it is across width, batch size or steps? "
        "Trains every size with every value for several seeds, under μP and, as a control, sp, and "
        "says PASS, FAIL or INCONCLUSIVE (Algorithms 1 to 3). The same command again resumes. With "
        "--extend: if the verdict is INCONCLUSIVE, run what would help, and judge again. With "
        "--dry-run: print config and cost, and stop.",
        VerifyConfig,
    )
    # Not the parser's, so that --print_config holds a study and nothing else.
    options = [option for option in argv if option not in _FLAGS]
    config = parse_experiment(parser, options, VerifyConfig)
    if "--dry-run" in argv:
        print(grid_text(preview_grid(config)))
        return 0
    command = shlex.join(["mudit", "verify", *without_secrets(argv)])
    with Terminal() as terminal:
        found = verify(config, extend="--extend" in argv, command=command, listener=terminal)
    print(verdict_text(found))
    return CODES[found.verdict]

"""`mudit verify`: Algorithms 1 to 3 with a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mudit.cli.parsing import (
    parse_experiment,
    study_parser,
    take_option,
    take_recipe,
    without_secrets,
)
from mudit.cli.progress import Terminal
from mudit.cli.texts import grid_text, verdict_text
from mudit.errors import UsageError
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
    recipe, options = take_recipe(options)
    base = None
    if recipe is not None:
        across, hp = (take_option(options, name)[0] for name in ("--across", "--hp"))
        base = recipe.grid(across=across, hp=hp)
    config = parse_experiment(parser, options, VerifyConfig, base)
    if base is not None and (config.across, config.hp) != (base.across, base.hp):
        raise UsageError(
            f"a file says across {config.across} and hp {config.hp}, but the recipe's grid that is "
            f"taken is of {base.hp} across {base.across}. Say --across and --hp on the command "
            "line, which choose the grid."
        )
    if "--dry-run" in argv:
        seen = preview_grid(config) if recipe is None else recipe.preview_grid(config)
        print(grid_text(seen))
        return 0
    if recipe is not None:
        recipe.require_data(config)
    command = shlex.join(["mudit", "verify", *without_secrets(argv)])
    with Terminal() as terminal:
        found = verify(config, extend="--extend" in argv, command=command, listener=terminal)
    print(verdict_text(found))
    return CODES[found.verdict]

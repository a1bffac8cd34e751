"""`mudit recipes`: complete studies by name."""

from __future__ import annotations

from collections.abc import Sequence

from mudit.cli.parsing import make_parser, parse
from mudit.cli.texts import cost_text
from mudit.recipes import RECIPES, recipe_named, recipe_text, table_text


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    parser = make_parser(
        "recipes",
        "Complete studies by name. Without NAME: a table of them. With NAME: what the recipe is, "
        "its commands, every constant with its source, its cost, the licences of its data and "
        "weights, and what it should come to. `--recipe NAME` begins transfer, verify, train and "
        "cost with it.",
    )
    parser.add_argument("name", type=str, nargs="?", default="", help="a recipe")
    name = parse(parser, argv).name
    if not name:
        print(table_text([make() for make in RECIPES.values()]))
        return 0
    recipe = recipe_named(name)
    print(recipe_text(recipe, cost_text(recipe.cost())))
    return 0

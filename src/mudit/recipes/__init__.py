"""Complete studies by name: the paper's, and ones of a size for a CPU.

Each is a plain function that returns a `Recipe`; its arguments say where data lie.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mudit.errors import UsageError
from mudit.recipes.dit import dit_imagenet256
from mudit.recipes.emoji import emoji_mmdit, emoji_pixart
from mudit.recipes.fashion import fashion_dit, fashion_uvit
from mudit.recipes.mmdit import mmdit_18b
from mudit.recipes.pixart import pixart_sam256
from mudit.recipes.recipe import Expected, Licence, PublishedCost, Recipe
from mudit.recipes.text import cost_lines, recipe_text, table_text
from mudit.recipes.uvit import uvit_imagenet256

RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "dit_imagenet256": dit_imagenet256,
        "pixart_sam256": pixart_sam256,
        "mmdit_18b": mmdit_18b,
        "uvit_imagenet256": uvit_imagenet256,
        "fashion_dit": fashion_dit,
        "fashion_uvit": fashion_uvit,
        "emoji_pixart": emoji_pixart,
        "emoji_mmdit": emoji_mmdit,
    }
)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name, with its own arguments.

    Raises:
        UsageError: There is none.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=2, cutoff=0.4)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(
            f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}.{meant} `mudit recipes` "
            "lists them with what they are."
        )
    return RECIPES[name]()


__all__ = [
    "RECIPES",
    "Expected",
    "Licence",
    "PublishedCost",
    "Recipe",
    "cost_lines",
    "dit_imagenet256",
    "emoji_mmdit",
    "emoji_pixart",
    "fashion_dit",
    "fashion_uvit",
    "mmdit_18b",
    "pixart_sam256",
    "recipe_named",
    "recipe_text",
    "table_text",
    "uvit_imagenet256",
]

"""Typed options from dataclasses: YAML, then dotted overrides; an unknown key is an error."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from mudit.errors import UsageError
from mudit.models import ARCHITECTURES
from mudit.recipes import Recipe, recipe_named
from mudit.tuning import DEFAULT_ARCHITECTURE, ExperimentConfig, StudyConfig
from mudit.tuning.storage import shown_storage

Experiment = TypeVar("Experiment", bound=ExperimentConfig)


def study_parser(
    verb: str, description: str, config: type[ExperimentConfig] = StudyConfig
) -> ArgumentParser:
    """A parser of all of a study's options, `--config` and dotted overrides."""
    parser = make_parser(verb, description)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(config, None)
    # Spelt out for --help; `parse_study` reads it before the parser does.
    names = ", ".join(ARCHITECTURES)
    parser.epilog = (
        f"--model NAME trains another architecture: {names}. --recipe NAME begins with a complete "
        "study instead of the defaults; `mudit recipes` lists them."
    )
    return parser


def make_parser(verb: str, description: str) -> ArgumentParser:
    """A parser that raises instead of exiting."""
    return ArgumentParser(prog=f"mudit {verb}", description=description, exit_on_error=False)


def take_recipe(argv: Sequence[str]) -> tuple[Recipe | None, list[str]]:
    """The recipe that `--recipe NAME` asks for, if any, and the other options.

    Raises:
        UsageError: There is no such recipe, or it is asked for twice.
    """
    name, rest = take_option(argv, "--recipe")
    if take_option(rest, "--recipe")[0] is not None:
        raise UsageError("--recipe is given twice; a study begins with one recipe.")
    return (None if name is None else recipe_named(name)), rest


def take_option(argv: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option, None if it is not given, and the other words."""
    words = list(argv)
    for place, word in enumerate(words):
        if word == option:
            return " ".join(words[place + 1 : place + 2]), words[:place] + words[place + 2 :]
        if word.startswith(f"{option}="):
            return word.partition("=")[2], words[:place] + words[place + 1 :]
    return None, words


def parse_study(
    parser: ArgumentParser, argv: Sequence[str], base: StudyConfig | None = None
) -> StudyConfig:
    """The transfer study's config; see `parse_experiment`."""
    return parse_experiment(parser, argv, StudyConfig, base)


def parse_experiment(
    parser: ArgumentParser,
    argv: Sequence[str],
    config: type[Experiment],
    base: Experiment | None = None,
) -> Experiment:
    """The study's config; `--model NAME` stands for what makes an architecture train here.

    Args:
        parser: From `study_parser`.
        argv: The options, in the order in which they count.
        config: The config's class.
        base: A recipe's config, which they change; None: the defaults.

    Raises:
        UsageError: As `parse`, and for an architecture that does not exist.
    """
    options: list[str] = []
    if base is not None:
        options.append(f"--config={json.dumps(dataclasses.asdict(base))}")
    rest = iter(argv)
    for option in rest:
        if option != "--model" and not option.startswith("--model="):
            options.append(option)
            continue
        name = option.partition("=")[2] or next(rest, "")
        if name not in ARCHITECTURES:
            raise UsageError(
                f"--model is {name!r}; expected one of {', '.join(ARCHITECTURES)}. Sizes are "
                "--model.depth and so on."
            )
        has_sigma = "learn_sigma" in ARCHITECTURES[name].config.__dataclass_fields__
        options.append(f"--model.architecture={name}")
        options.append(f"--objective.learn_sigma={str(has_sigma).lower()}")
        options.append(f"--hps.eps={ARCHITECTURES[name].eps}")
        if (
            name != DEFAULT_ARCHITECTURE and base is None
        ):  # beside the default study, not in its folder
            parser.set_defaults({"folder": f"{parser.get_default('folder')}-{name}"})
    values: dict[str, Any] = dict(parse(parser, options).items())
    return config(**{key: value for key, value in values.items() if key != "config"})


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """The options, with config dataclasses made.

    Raises:
        UsageError: An option is unknown or has a wrong value; the message names it.
    """
    try:
        namespace: Namespace = parser.instantiate(parser.parse_args(list(argv)))
        return namespace
    except ArgumentError as error:
        raise UsageError(_explained(parser, str(error))) from None


def without_secrets(argv: Sequence[str]) -> list[str]:
    """The options as they may be shown: a storage's URL may hold a password."""
    shown: list[str] = []
    for option in argv:
        name, _, value = option.partition("=")
        if name == "--storage" and value:
            option = f"--storage={shown_storage(value)}"
        elif shown and shown[-1] == "--storage":
            option = shown_storage(option)
        shown.append(option)
    return shown


def output_path(text: str) -> Path:
    """A path to write to.

    Raises:
        UsageError: Its folder does not exist.
    """
    path = Path(text)
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} of {path} does not exist; make it first.")
    return path


def _explained(parser: ArgumentParser, message: str) -> str:
    """Jsonargparse's message, with the nearest option where one is unknown."""
    text = " ".join(message.split())
    known = [name for action in parser._actions for name in action.option_strings]
    given = [word.strip("'\"").split("=")[0] for word in text.split()]
    for option in (word for word in given if word.startswith("--") and word not in known):
        if near := difflib.get_close_matches(option, known, n=1):
            text += f". Did you mean {near[0]}?"
    if "search.space" in text and "class 'str'" in text:
        text += ". A HP of a role has a dot in its name: give the space as a mapping, "
        text += '--search.space \'{lr: "log2(-9, -5)", phi.output: "grid(0.5, 1, 2)"}\''
    return f"{text} (`{parser.prog} --help` lists all options)"

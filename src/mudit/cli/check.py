"""`mudit check`: the coordinate check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mudit.cli.models import certificate_for, imported, model_source
from mudit.cli.parsing import make_parser, parse
from mudit.errors import UsageError
from mudit.models import ARCHITECTURES, preset
from mudit.parametrization import Plan, plan
from mudit.tuning import DEFAULT_ARCHITECTURE
from mudit.tuning.check_files import write_check
from mudit.tuning.check_tasks import CheckTask, digits_task, noise_task
from mudit.tuning.coordinate_check import CoordinateCheck, coordinate_check

_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 4}
_DIGITS = "digits"


def run(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    options = parse(_parser(), argv)
    folder = Path(options.folder)
    if folder.is_file():
        raise UsageError(f"--folder {folder} is a file, expected a folder or a new name.")
    if len(options.widths) < 2:
        raise UsageError(f"--widths is {options.widths}, expected two or more.")
    task, made = _task_and_plan(options)
    check = _checked(task, made, options)
    write_check(check, folder)
    print(check.to_markdown(), end="")
    print(f"\n{check.verdict}: {folder / 'check.md'}")
    return _CODES[check.verdict]


def _parser() -> ArgumentParser:
    parser = make_parser(
        "check",
        "Train small models of several widths for a few steps, and see whether any feature, update "
        "or initial value grows or shrinks with width. With no options: a small DiT on digits.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        type=str,
        default=_DIGITS,
        help="digits, an architecture (dit, uvit, pixart, mmdit) on digits, a preset's name, or "
        "package.module:function, where function(width) builds a model",
    )
    parser.add_argument("--model", type=str, default="", help="the same, as an option")
    parser.add_argument(
        "--loss",
        type=str,
        default="",
        help="package.module:function, where function(model, generator) returns the loss on a "
        "batch drawn from the generator; needed for a model of your own",
    )
    parser.add_argument(
        "--inputs",
        type=str,
        default="",
        help="package.module:function, where function(width) returns example inputs: roles are "
        "then measured",
    )
    parser.add_argument(
        "--init", type=str, default="", help="e.g. dit or dit_mup, of digits or preset"
    )
    parser.add_argument("--depth", type=int, default=0, help="blocks, of digits (1) or preset")
    parser.add_argument("--batch_size", type=int, default=16, help="images, of digits or preset")
    parser.add_argument(
        "--widths", type=list[int], default=[32, 64, 128, 256], help="the least is the base width"
    )
    parser.add_argument("--steps", type=int, default=8, help="of the early check")
    parser.add_argument("--seeds", type=int, default=16, help="replicates")
    parser.add_argument(
        "--late_steps", type=int, default=150, help="of the late probe, for weight decay; 0: none"
    )
    parser.add_argument("--late_seeds", type=int, default=3, help="replicates of the late probe")
    parser.add_argument("--lr", type=float, default=2**-8, help="base learning rate")
    parser.add_argument(
        "--weight_decay",
        type=float | None,
        default=None,
        help="base weight decay; default: one that takes half of the initial values by the late "
        "probe",
    )
    parser.add_argument(
        "--eps", type=float | None, default=None, help="Adam's eps; default: the architecture's"
    )
    parser.add_argument("--parametrization", type=str, default="mup", help="mup or sp")
    parser.add_argument("--optimizer", type=str, default="adamw", help="adamw, adam or sgd")
    parser.add_argument("--wd", type=str, default="independent", help="independent or constant")
    parser.add_argument("--eps_rule", type=str, default="constant", help="constant or scaled")
    parser.add_argument("--control", type=bool, default=True, help="run sp beside it")
    parser.add_argument(
        "--unused", type=list[str], default=[], help="patterns of parameters that the loss leaves"
    )
    parser.add_argument("--folder", type=str, default="check", help="where the results go")
    return parser


def _task_and_plan(options: Namespace) -> tuple[CheckTask, Plan]:
    name = options.model or options.name
    certificate = None
    if name in (_DIGITS, *ARCHITECTURES):
        sizes = {"depth": options.depth} if options.depth else {}
        init = {"init": options.init} if options.init else {}
        architecture = DEFAULT_ARCHITECTURE if name == _DIGITS else name
        task = digits_task(architecture, batch_size=options.batch_size, **sizes, **init)
    elif ":" in name:
        if not options.loss:
            raise UsageError(
                f"{name} needs a loss: --loss package.module:function, where "
                "function(model, generator) returns a scalar tensor."
            )
        options.model_args, options.small = {}, False
        source = model_source(options)
        task = CheckTask(build=source.build, loss=imported(options.loss, "--loss"))
        least = min(options.widths)
        widths = sorted({*options.widths, 2 * least, 3 * least})
        certificate = certificate_for(source, tuple(widths))
    else:
        overrides = {"depth": options.depth} if options.depth else {}
        overrides |= {"init": options.init} if options.init else {}
        task = noise_task(preset(name, **overrides), batch_size=options.batch_size)
    made = plan(
        task.build,
        width=max(options.widths),
        base_width=min(options.widths),
        parametrization=options.parametrization,
        optimizer=options.optimizer,
        wd=options.wd,
        eps_rule=options.eps_rule,
        inputs=task.inputs,
        certificate=certificate,
    )
    return task, made


def _checked(task: CheckTask, made: Plan, options: Namespace) -> CoordinateCheck:
    console = Console(stderr=True)
    with Progress(
        TextColumn("  models"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("models", total=None)
        return coordinate_check(
            task.build,
            task.loss,
            plan=made,
            widths=options.widths,
            steps=options.steps,
            seeds=options.seeds,
            late_steps=options.late_steps or None,
            late_seeds=options.late_seeds,
            lr=options.lr,
            weight_decay=options.weight_decay,
            eps=task.eps if options.eps is None else options.eps,
            control=options.control,
            unused=[*task.unused, *options.unused],
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )

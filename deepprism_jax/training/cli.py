"""The command line of `train.py`: an experiment by name, then overrides of its fields.

    python train.py CONFIG [--nested.override value] [--workdir DIR] [--resume]

Fields, types and help come from the dataclasses of `training.config`, through tyro.
"""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepprism_jax.training.preflight import PreflightError

PROGRAM = "train.py"

OptionsT = TypeVar("OptionsT")
ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Run(Generic[ConfigT]):
    """What the command line asks for."""

    config: Annotated[ConfigT, tyro.conf.arg(name="")]
    """The experiment, with its overrides."""
    workdir: str
    """Directory of the run: checkpoints, metrics, pictures, finally the model."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on from the newest checkpoint in the work directory."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Check everything, print parameters, learning rate and memory, and stop."""
    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """There are several processes even if nothing says so; JAX then finds them."""


def parse(argv: Sequence[str], experiments: Mapping[str, ModuleType]) -> Run[Any]:
    """Return what the arguments ask for.

    Args:
        argv: arguments after the program's name.
        experiments: name to module with `get_config() -> Config` and a docstring.

    Raises:
        PreflightError: unknown experiment or option, or a value of the wrong type.
        SystemExit: help was asked for and has been printed.
    """
    if argv and argv[0] in ("-h", "--help"):
        print_help(experiments)
        raise SystemExit(0)
    name, overrides = experiment(argv, experiments, program=f"python {PROGRAM}")
    module = experiments[name]
    config = module.get_config()
    return read(
        Run[type(config)],
        overrides,
        prog=f"{PROGRAM} {name}",
        description=module.__doc__,
        default=Run(config=config, workdir=f"runs/{name}"),
    )


def experiment(
    argv: Sequence[str], experiments: Mapping[str, ModuleType], *, program: str
) -> tuple[str, list[str]]:
    """Return the name of the experiment, which comes first, and what follows it.

    Raises:
        PreflightError: none is named first, or an unknown one.
    """
    if not argv:
        raise PreflightError(f"no CONFIG is named; see {program} --help")
    name, *overrides = argv
    if name.startswith("-"):
        raise PreflightError(
            f"{name} came before CONFIG; see {program} --help for the order"
        )
    if name not in experiments:
        raise PreflightError(unknown("config", name, experiments))
    return name, overrides


def read(
    options: Callable[..., OptionsT], argv: Sequence[str] | None, **how: Any
) -> OptionsT:
    """Return options as the arguments give them, those of the process if None.

    Args:
        options: a dataclass.
        argv: arguments after the program's name.
        how: further arguments of `tyro.cli`.

    Raises:
        PreflightError: an argument is unknown, missing, or of the wrong type.
        SystemExit: help was asked for and has been printed.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, args=argv, **how)
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise PreflightError(one_line(errors.getvalue())) from None


def unknown(kind: str, name: str, known: Mapping[str, object]) -> str:
    """Say that a name is not known, and which ones are near it."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"unknown {kind} {name!r}; perhaps you meant {' or '.join(near)}"
    return f"unknown {kind} {name!r}; choose one of {', '.join(known)}"


_USAGE = f"""\
usage: python {PROGRAM} CONFIG [--nested.override VALUE ...]
                       [--workdir DIR] [--resume] [--dry-run]
"""

_READ_ON = f"""
python {PROGRAM} CONFIG --help explains every field and its default in CONFIG.

Ctrl-C or SIGTERM ends the run after the current step with a checkpoint, from
which --resume goes on, and with the exit code 130 or 143. Other exit codes: 0 the
run is done, 1 it failed, 2 it was refused before any work."""


def print_help(experiments: Mapping[str, ModuleType]) -> None:
    """Print usage and the experiments with the first lines of their docstrings."""
    table = Table("CONFIG is one of", "", box=None, header_style="")
    for name, experiment in experiments.items():
        lines = (experiment.__doc__ or "").strip().splitlines()
        table.add_row(f"  {name}", Text(lines[0] if lines else ""))
    console = Console()
    console.print(_USAGE, highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(_READ_ON, highlight=False, markup=False, soft_wrap=True)


def one_line(box: str) -> str:
    """Return a message that tyro has drawn as a box as one line.

    The box has a title, then the message, then between rules the options nearest to
    each unknown one or the option's help, then where to read on. Where the terminal has
    no UTF-8 a rule is under the title, and there is no edge.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts: list[list[str]] = [[]]
    for row in plain.splitlines():
        row = row.strip(" │")
        if row.startswith(("╭", "╰")):
            continue
        if row and not row.strip("─-"):
            parts.append([])
        elif row:
            parts[-1].append(row)
    if "╭" not in plain and len(parts) > 1:
        parts = parts[1:]
    message = " ".join(parts[0])
    if not message:
        return "the command line was not understood"
    _, unrecognized, listed = message.partition("Unrecognized options: ")
    if not unrecognized:
        return message.rstrip(".")
    words = listed.split(", ")
    # The values of an unknown option are listed after it, or are a part of it.
    names = [word.partition("=")[0] for word in words if word.startswith("--")] or words
    near: dict[str, list[str]] = {}
    for heading, *rows in filter(None, parts[1:]):
        found = [row.split()[0].rstrip(",") for row in rows if row.startswith("--")]
        if heading.startswith("Perhaps you meant"):
            near[names[0]] = found
        elif similar := re.match(r"Arguments similar to ([^=:]+)", heading):
            near[similar[1]] = found
    said = []
    for name in names:
        said.append(f"unknown option {name}")
        if name in near:
            said.append(f"perhaps you meant {' or '.join(near[name][:3])}")
    return "; ".join(said)


def report(error: PreflightError) -> int:
    """Print the problems, one a line, and return the exit code."""
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 2

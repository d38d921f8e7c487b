"""`python -m deepprism_jax.analysis plan CONFIG --topology v5e:4x4 [--override value]`.

Compiles the training step of an experiment for a slice of TPUs, or for GPUs as
cuda:h100:8, on a machine that needs none, and prints whether it fits and what it takes.
The overrides are those of train.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Generic

import jax
import tyro
from rich.console import Console

from deepprism_jax.analysis.plan import Plan, make_plan
from deepprism_jax.analysis.plan_report import plan_table, plan_title, write_json
from deepprism_jax.analysis.plan_sweep import advice, options, sweep
from deepprism_jax.analysis.plan_topology import check_compiler, parse_slice
from deepprism_jax.training import cli
from deepprism_jax.training.cli import ConfigT
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.systems import check

PROGRAM = "python -m deepprism_jax.analysis plan"
_ORDER = f"{PROGRAM} CONFIG --topology v5e:4x4"


@dataclass(frozen=True)
class Options(Generic[ConfigT]):
    """What to plan."""

    config: Annotated[ConfigT, tyro.conf.arg(name="")]
    """The experiment, with its overrides."""
    topology: str
    """Chip and sides of a slice, v4:2x2x4, v5e:4x4, v6e:8x8, or GPUs, cuda:h100:8."""
    sweep: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile larger batches too; or what takes less memory, until it fits."""
    json: str = ""
    """File to write the plan to."""


def main(argv: Sequence[str]) -> int:
    """Plan what the arguments after `plan` name and return the exit code."""
    try:
        run(argv, _experiments())
    except PreflightError as error:
        return cli.report(error)
    return 0


def run(argv: Sequence[str], experiments: Mapping[str, ModuleType]) -> list[Plan]:
    """Print the plan of what the arguments name; every refusal comes before any work.

    Raises:
        PreflightError: the arguments are wrong, the config does not fit the slice, or
            there is no compiler for the devices.
    """
    name, asked = parse(argv, experiments)
    with refusing():
        slice_ = parse_slice(asked.topology)
    check(asked.config, devices=slice_.devices)
    with refusing():
        check_compiler(slice_.platform)
    if asked.json and Path(asked.json).is_dir():
        raise PreflightError(f"--json {asked.json} is a folder; name a file in it")
    # Devices that are here stay free; the compiler does not need them.
    jax.config.update("jax_platforms", "cpu")
    console, plans = Console(), []
    console.print(f"compiling {name} for {slice_.name}; this takes minutes")
    if not asked.sweep:
        plans = [make_plan(asked.config, slice_)]
    else:
        for plan in sweep(asked.config, slice_):
            plans.append(plan)
            words = "fits" if plan.fits else "does not fit"
            what = options(plan, plans[0])
            console.print(f"{what} {words} ({plan.seconds:.0f} s)", highlight=False)
    # A file or a pipe has no width: rows stay whole there.
    wide = console if console.is_terminal else Console(width=40 + 20 * len(plans))
    console.print(plan_title(name, plans[0]), highlight=False, soft_wrap=True)
    wide.print(plan_table(plans))
    console.print(advice(plans), highlight=False, soft_wrap=True)
    if asked.json:
        with refusing():
            write_json(asked.json, name, asked.config, plans)
    return plans


def parse(
    argv: Sequence[str], experiments: Mapping[str, ModuleType]
) -> tuple[str, Options[Any]]:
    """Return the name of the experiment and the options.

    Raises:
        PreflightError: unknown experiment or option, or a value of the wrong type.
        SystemExit: help was asked for and has been printed.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: {_ORDER} [--sweep] [--json FILE] [--override VALUE]\n{__doc__}")
        print(f"CONFIG is one of {', '.join(experiments)}")
        raise SystemExit(0)
    name, overrides = cli.experiment(argv, experiments, program=PROGRAM)
    module = experiments[name]
    config = module.get_config()
    asked = cli.read(
        Options[type(config)],
        overrides,
        prog=f"{PROGRAM} {name}",
        description=module.__doc__,
        default=Options(config=config, topology=""),
    )
    if not asked.topology:
        raise PreflightError(f"no slice is named, as in {_ORDER}")
    return name, asked


def _experiments() -> Mapping[str, ModuleType]:
    try:
        from configs import CONFIGS
    except ModuleNotFoundError as error:
        raise PreflightError(
            "there are no experiments here (the folder configs/): run in the folder of "
            "the repository"
        ) from error
    return CONFIGS

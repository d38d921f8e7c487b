"""`--dry-run`: every check of a run, and what it would be, without any of its work."""

import jax
from rich.console import Console

from deepprism_jax.analysis import parameter_table
from deepprism_jax.paths import PathLike
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.init_from import starting_values
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.summary import (
    devices_line,
    learning_rate_line,
    memory_lines,
    mesh_line,
    norm_lines,
)
from deepprism_jax.training.systems import Experiment, system_of


def dry_run(
    config: Experiment, workdir: PathLike, *, resume: bool = False, console: Console
) -> None:
    """Print parameters, learning rate, batch, data and memory of a run.

    Raises:
        PreflightError: the run would be refused. What can be told in spite of that has
            then been printed.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    system = system_of(config)
    system.check(config, devices=jax.device_count(), processes=jax.process_count())
    console.print(parameter_table(system.networks(config)))
    for line in (
        devices_line(config),
        mesh_line(config),
        *norm_lines(config),
        learning_rate_line(config),
        system.batch_line(config),
    ):
        say(line)
    problems: list[str] = []
    try:
        say(system.data_line(config, system.open_data(config)))
    except PreflightError as error:
        problems += error.problems
    try:
        workdirs.check_workdir(workdir, config, resume=resume)
    except PreflightError as error:
        # Nothing will be written, so this is no reason to fail.
        say(f"work directory: {error}")
    try:
        trainer = system.make_trainer(config)
        if source := config.train.init_from:
            for line in starting_values(trainer.model, source, config.train.seed)[1]:
                say(line)
        for line in memory_lines(trainer):
            say(line)
    except PreflightError as error:
        problems += error.problems
    if problems:
        raise PreflightError(*dict.fromkeys(problems))  # two may meet the same one

"""`--dry-run`: every check of a run, and what it would be, without any of its work."""

import jax
from rich.console import Console

from deepprism_jax.analysis import parameter_table
from deepprism_jax.paths import PathLike
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.config import Config
from deepprism_jax.training.preflight import PreflightError, check
from deepprism_jax.training.setup import make_trainer, open_data
from deepprism_jax.training.summary import (
    batch_line,
    data_line,
    devices_line,
    learning_rate_line,
    memory_lines,
    mesh_line,
    networks,
)


def dry_run(
    config: Config, workdir: PathLike, *, resume: bool = False, console: Console
) -> None:
    """Print parameters, learning rate, batch, data and memory of a run.

    Raises:
        PreflightError: the run would be refused. What can be told in spite of that has
            then been printed.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    check(config, devices=jax.device_count(), processes=jax.process_count())
    console.print(parameter_table(networks(config)))
    for line in (
        devices_line(),
        mesh_line(config),
        learning_rate_line(config),
        batch_line(config),
    ):
        say(line)
    problems: list[str] = []
    try:
        say(data_line(config, open_data(config)))
    except PreflightError as error:
        problems += error.problems
    try:
        workdirs.check_workdir(workdir, config, resume=resume)
    except PreflightError as error:
        # Nothing will be written, so this is no reason to fail.
        say(f"work directory: {error}")
    try:
        for line in memory_lines(make_trainer(config)):
            say(line)
    except PreflightError as error:
        problems += error.problems
    if problems:
        raise PreflightError(*problems)

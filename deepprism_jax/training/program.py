"""The training program: what `train.py` does once the command line is read."""

import contextlib
import os
from pathlib import Path

import jax
from rich.console import Console

from deepprism_jax.training import profiling
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.cli import Run
from deepprism_jax.training.compilation import keep_programs
from deepprism_jax.training.config import Config
from deepprism_jax.training.dry_run import dry_run
from deepprism_jax.training.evaluator import Evaluator
from deepprism_jax.training.loop import DONE, FAILED, Loop
from deepprism_jax.training.meter import NonFiniteError
from deepprism_jax.training.peak import ideal_seconds
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.profiling import Profile
from deepprism_jax.training.setup import Data, make_trainer, open_data
from deepprism_jax.training.signals import StopSignals
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.summary import run_lines
from deepprism_jax.training.timing import StepTimer
from deepprism_jax.training.trainer import Trainer
from deepprism_jax.training.writers import (
    ConsoleWriter,
    JsonlWriter,
    PngWriter,
    TensorBoardWriter,
    Writers,
)
from deepprism_jax.weights.pretrained import CHECKPOINTS


def main(run: Run) -> int:
    """Do what the command line asks for and return the exit code.

    Raises:
        PreflightError: it is refused, before any work.
    """
    keep_memory()
    if run.distributed:
        with refusing():
            join_processes()
    if run.dry_run:
        dry_run(run.config, run.workdir, resume=run.resume, console=Console())
        return DONE
    return train(run.config, run.workdir, resume=run.resume)


def join_processes() -> None:
    """Make this process one of several, before the first use of a device.

    Cloud TPU, Slurm and Open MPI say how many there are and which one this is. Anywhere
    else variables do, of which JAX itself reads only JAX_COORDINATOR_ADDRESS.

    Raises:
        ValueError: nothing says it.
    """
    count, index = (os.environ.get(f"JAX_{x}") for x in ("NUM_PROCESSES", "PROCESS_ID"))
    jax.distributed.initialize(
        num_processes=None if count is None else int(count),
        process_id=None if index is None else int(index),
    )


def train(config: Config, workdir: str | Path, *, resume: bool = False) -> int:
    """Train as the config says and return the exit code; every process calls.

    Raises:
        PreflightError: the run is impossible, or must not write to `workdir`.
    """
    workdir = Path(workdir)
    workdirs.check_workdir(workdir, config, resume=resume)
    notes = []
    if resume:
        notes += workdirs.notes_on_changes(workdirs.read_config(workdir), config)
    trainer, data = make_trainer(config), open_data(config)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(workdirs.claim(workdir, config, resume=resume))
        stack.enter_context(keep_programs(workdir))
        stop = stack.enter_context(StopSignals())
        stack.enter_context(jax.debug_nans(config.train.debug_nans))
        checkpoints = stack.enter_context(
            Checkpoints(
                workdir / CHECKPOINTS,
                keep=config.train.keep,
                keep_best=config.train.keep_best,
                say=notes.append,
            )
        )
        step, state = 0, None
        if resume:
            step, state = restore(checkpoints, trainer, data, notes)
        with refusing():
            writers = open_writers(workdir, config, step if resume else None)
        stack.callback(writers.close)
        loop = Loop(
            config=config,
            workdir=workdir,
            trainer=trainer,
            batches=data.train,
            evaluator=Evaluator(
                trainer, data.held_out, interrupted=lambda: stop.received is not None
            ),
            checkpoints=checkpoints,
            writers=writers,
            stop=stop,
            timer=StepTimer(config.train.batch_size, ideal_seconds(trainer)),
            profile=stack.enter_context(
                Profile(
                    workdir / profiling.FOLDER,
                    *config.train.profile_steps,
                    say=lambda line: loop.say(line),
                )
            ),
            step=step,
        )
        for line in [*run_lines(config, data), *notes]:
            loop.say(line)
        checkpoints.say = loop.say
        try:
            return loop.finish(loop.run(trainer.init() if state is None else state))
        except NonFiniteError as error:
            newest = checkpoints.latest
            kept = "there is none" if newest is None else f"it is of step {newest}"
            loop.say(f"stopped: {error}; the newest checkpoint stays ({kept})")
            return FAILED


def restore(
    checkpoints: Checkpoints, trainer: Trainer, data: Data, notes: list[str]
) -> tuple[int, TrainState]:
    """Return step and state of the newest checkpoint; the data are put at its position.

    Raises:
        PreflightError: none can be read; with the notes on why.
    """
    target = jax.tree.map(
        lambda x, sharding: x.update(sharding=sharding),
        trainer.state_shapes,
        trainer.state_sharding,
    )
    try:
        step, items = checkpoints.restore({"state": target, "data": None})
    except PreflightError as error:
        raise PreflightError(*notes, *error.problems) from None
    with refusing():
        data.train.set_state(items["data"])
    notes.append(f"going on from step {step}")
    return step, items["state"]


def open_writers(workdir: Path, config: Config, step: int | None) -> Writers:
    """Return the writers of process 0, going on from a step if not None."""
    if jax.process_index() != 0:
        return Writers([])
    kept = -1 if step is None else step
    return Writers(
        [
            ConsoleWriter(config.train.steps, step=step or 0),
            JsonlWriter(workdir / workdirs.METRICS, step=kept),
            TensorBoardWriter(workdir / workdirs.TENSORBOARD, step=kept),
            PngWriter(workdir),
        ]
    )

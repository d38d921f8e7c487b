"""The training program: what `train.py` does once the command line is read."""

import contextlib
from pathlib import Path

import jax
from rich.console import Console

from deepprism_jax.analysis import parameter_table
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.cli import Run
from deepprism_jax.training.config import Config
from deepprism_jax.training.evaluator import Evaluator
from deepprism_jax.training.loop import DONE, FAILED, Loop
from deepprism_jax.training.meter import NonFiniteError
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.setup import Data, make_trainer, open_data
from deepprism_jax.training.signals import StopSignals
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.summary import (
    batch_line,
    data_line,
    devices_line,
    learning_rate_line,
    memory_lines,
    networks,
    run_lines,
)
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
            jax.distributed.initialize()
    if run.dry_run:
        dry_run(run.config, run.workdir, resume=run.resume, console=Console())
        return DONE
    return train(run.config, run.workdir, resume=run.resume)


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
        stop = stack.enter_context(StopSignals())
        stack.enter_context(jax.debug_nans(config.train.debug_nans))
        checkpoints = Checkpoints(
            workdir / CHECKPOINTS, keep=config.train.keep, say=notes.append
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
            step=step,
        )
        for line in [*run_lines(config, trainer, data), *notes]:
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
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=trainer.state_sharding
        ),
        jax.eval_shape(trainer.init),
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


def dry_run(
    config: Config, workdir: str | Path, *, resume: bool = False, console: Console
) -> None:
    """Check everything that a run would, and print what it would be.

    Raises:
        PreflightError: the run would be refused. Of networks that can be made, all but
            the cause has then been printed.
    """
    trainer = make_trainer(config)
    console.print(parameter_table(networks(trainer)))
    problems: list[str] = []
    lines = [devices_line(), learning_rate_line(config), batch_line(config)]
    try:
        lines.append(data_line(config, open_data(config)))
    except PreflightError as error:
        problems += error.problems
    try:
        workdirs.check_workdir(workdir, config, resume=resume)
    except PreflightError as error:
        problems += error.problems
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in memory_lines(config, trainer):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise PreflightError(*problems)

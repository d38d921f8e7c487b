"""The training program: what `train.py` does once the command line is read."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import jax
from rich.console import Console

from deepprism_jax.paths import AnyPath, PathLike, as_path, check_reachable
from deepprism_jax.training import profiling
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.agreement import (
    check_shared,
    common_facts,
    refusing_together,
)
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.training.board import open_board
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.cli import Run
from deepprism_jax.training.compilation import keep_programs
from deepprism_jax.training.dry_run import dry_run
from deepprism_jax.training.init_from import starting_values
from deepprism_jax.training.loop import DONE, FAILED, Loop, StoppedError
from deepprism_jax.training.meter import NonFiniteError
from deepprism_jax.training.mirror import Mirror
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.processes import join, meet_devices
from deepprism_jax.training.profiling import Profile
from deepprism_jax.training.setup import Data
from deepprism_jax.training.signals import StopSignals
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.stragglers import Stragglers
from deepprism_jax.training.summary import run_lines
from deepprism_jax.training.systems import (
    Experiment,
    make_trainer,
    open_data,
    system_of,
)
from deepprism_jax.training.timing import StepTimer
from deepprism_jax.training.trainer import Trainer
from deepprism_jax.training.watchdog import Watchdog
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
    with refusing():
        join(forced=run.distributed)
    if run.dry_run:
        board = open_board()
        with Watchdog(board).watching():
            with refusing():
                meet_devices()
            with refusing_together(board, "dry run"):
                console = Console(quiet=jax.process_index() > 0)
                dry_run(run.config, run.workdir, resume=run.resume, console=console)
        return DONE
    return train(run.config, run.workdir, resume=run.resume)


def train(config: Experiment, workdir: PathLike, *, resume: bool = False) -> int:
    """Train as the config says and return the exit code; every process calls.

    Raises:
        PreflightError: the run is impossible, or must not write to `workdir`.
    """
    board = open_board()
    with Watchdog(board, timeout=config.train.step_timeout).watching() as watchdog:
        code = _train(config, workdir, resume, watchdog)
        # Process 0 may have more to write, and all say the same in the end.
        codes = [code] if board is None else board.gather("exit code", code)
        return FAILED if FAILED in codes else codes[0]


def _train(
    config: Experiment, workdir: PathLike, resume: bool, watchdog: Watchdog
) -> int:
    board, notes, system = watchdog.board, [], system_of(config)
    with refusing():
        meet_devices()
    with refusing_together(board, "preflight") as facts:
        with refusing():
            check_reachable(workdir)
            workdir = as_path(workdir)
        facts |= common_facts(config, workdir, resume)
        workdirs.check_workdir(workdir, config, resume=resume)
        if resume:
            notes += workdirs.notes_on_changes(workdirs.read_config(workdir), config)
        trainer, data, start = make_trainer(config), open_data(config), None
        if config.train.init_from and not resume:
            seed = config.train.seed
            start, said = starting_values(trainer.model, config.train.init_from, seed)
            notes += said
        facts["images"] = [data.train_images, data.held_out_images]
    with contextlib.ExitStack() as stack:
        with refusing_together(board, "claim"):
            if jax.process_index() == 0:
                stack.enter_context(workdirs.claim(workdir, config, resume=resume))
                system.keep_inputs(workdir, data)
        stack.enter_context(keep_programs(workdir))
        stop = stack.enter_context(StopSignals(board))
        stragglers = Stragglers(board)
        watchdog.checks += [stop.poll, stragglers.check]
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
        with refusing_together(board, "restore"), refusing():
            check_shared(workdir)
            if resume:
                step, state = restore(checkpoints, trainer, data, notes)
            writers = open_writers(
                workdir, config, step if resume else None, say=lambda x: loop.say(x)
            )
        stack.callback(writers.close)

        def interrupted(what: str = "a batch of the evaluation") -> bool:
            watchdog.begin(f"{what} at step", loop.step)
            return stop.agreed()

        loop = Loop(
            config=config,
            workdir=workdir,
            trainer=trainer,
            batches=data.train,
            evaluator=system.make_evaluator(trainer, data, interrupted),
            checkpoints=checkpoints,
            writers=writers,
            stop=stop,
            watchdog=watchdog,
            stragglers=stragglers,
            timer=StepTimer(
                system.images_per_step(config, data), system.ideal_seconds(trainer)
            ),
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
        # What the stack would wait for is not to be had if another process is gone.
        stack.enter_context(watchdog.guarding())
        try:
            system.prepare(trainer, data, workdir, loop.preparing)
            return loop.finish(
                loop.run(trainer.init(start) if state is None else state)
            )
        except StoppedError:
            return stop.exit_code
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
    try:
        targets = {"state": trainer.state_target, "data": None}
        step, items = checkpoints.restore(targets)
    except PreflightError as error:
        raise PreflightError(*notes, *error.problems) from None
    with refusing():
        data.train.set_state(items["data"])
    notes.append(f"going on from step {step}")
    return step, items["state"]


def open_writers(
    workdir: AnyPath,
    config: Experiment,
    step: int | None,
    *,
    say: Callable[[str], None],
) -> Writers:
    """Return the writers of process 0, going on from a step if not None.

    Raises:
        OSError: the files of before cannot be read, or new ones not be written.
    """
    if jax.process_index() != 0:
        return Writers([])
    kept = -1 if step is None else step
    if isinstance(workdir, Path):
        local, mirrors = workdir, []
    else:
        mirror = Mirror(workdir, () if step is None else (workdirs.METRICS,), say=say)
        local, mirrors = mirror.local, [mirror]
    return Writers(
        [
            ConsoleWriter(config.train.steps, step=step or 0),
            JsonlWriter(local / workdirs.METRICS, step=kept),
            TensorBoardWriter(local / workdirs.TENSORBOARD, step=kept),
            PngWriter(local),
            *mirrors,  # last, for it copies what the others have written
        ]
    )

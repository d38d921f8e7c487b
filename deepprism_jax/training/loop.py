"""The loop: step, log, evaluation and checkpoints, each when it is due."""

import collections
import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import Any

import jax

import deepprism_jax
from deepprism_jax.paths import AnyPath
from deepprism_jax.training import workdir as workdirs
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.meter import Meter, check_finite
from deepprism_jax.training.profiling import Profile
from deepprism_jax.training.signals import StopSignals
from deepprism_jax.training.state import TrainState
from deepprism_jax.training.stragglers import Stragglers
from deepprism_jax.training.systems import Evaluator, Experiment
from deepprism_jax.training.timing import StepTimer
from deepprism_jax.training.trainer import Trainer
from deepprism_jax.training.watchdog import Watchdog
from deepprism_jax.training.writers import Writers
from deepprism_jax.weights.pretrained import save_pretrained

DONE, FAILED = 0, 1
"""Exit codes; a run that a signal stops ends with 128 + its number."""

SAY_EVERY = 20.0
"""Seconds between lines on what is done before the first step."""

IN_FLIGHT = 2
"""Steps given to the device and not finished; more would only pile up batches."""


class StoppedError(BaseException):
    """A signal has come before the first step; all processes raise it together."""


@dataclass
class Loop:
    """The parts of one run, and what is done with them.

    The order at a step is: train, log, evaluate, save. So what a checkpoint of step n
    stands for is written before it, and a run that goes on from it starts with n + 1.
    """

    config: Experiment
    workdir: AnyPath
    trainer: Trainer
    batches: Any
    """Endless batches of this process, with `get_state()`."""
    evaluator: Evaluator
    checkpoints: Checkpoints
    writers: Writers
    stop: StopSignals
    watchdog: Watchdog
    stragglers: Stragglers
    timer: StepTimer
    profile: Profile
    step: int = 0
    """Steps done."""
    scored: tuple[int, float] = (-1, -math.inf)
    """Step of the last evaluation, and its score that is ranked by."""
    meter: Meter = field(default_factory=Meter)
    said: float = field(default_factory=time.monotonic)
    """When a line was last written for people."""

    def run(self, state: TrainState) -> TrainState:
        """Train until the last step, or until a signal, and return the state."""
        train, trainer = self.config.train, self.trainer
        in_flight: collections.deque[Any] = collections.deque()
        programs: set[str] = set()
        if self.step == 0:
            self.evaluate(state)
        while self.step < train.steps and not self.stop.agreed():
            self.watchdog.begin("the batch of step", self.step + 1, compiled=False)
            with self.timer.waiting():
                images = next(self.batches)
            program = trainer.program_of(images)
            self.watchdog.begin(program, self.step + 1)
            batch = trainer.shard_pieces(images)
            self.step += 1
            if new := program not in programs:  # it waits for the compiler
                programs.add(program)
                jax.block_until_ready(in_flight)
            with self.timer.paused() if new else contextlib.nullcontext():
                state, metrics = self.profile.traced(
                    self.step, trainer.step, state, batch
                )
                if new:
                    jax.block_until_ready(metrics)
            self.meter.update(self.step, metrics)
            in_flight.append(metrics)
            if len(in_flight) > IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            if not self.timer.running:
                self.timer.start(self.step)
            elif new:
                self.timer.skip()
            self.writers.advance(self.step)
            last = self.step == train.steps
            if last or self._due(train.log_every):
                self.log()
            best = False
            if last or self._due(train.eval_every):
                best = self.evaluate(state)
            if (best or self._due(train.save_every)) and not last:
                self.save(state)
        return state

    def log(self) -> None:
        """Write the means of the metrics since the last log, and what steps took."""
        values = self.meter.flush() | self.timer.read(self.step)
        self.writers.scalars(self.step, values)
        if line := self.stragglers.report(self.step, values.get("data_wait", 0.0)):
            self.say(line)

    def evaluate(self, state: TrainState) -> bool:
        """Score the model as it is, and show what it does.

        Returns whether it is the best so far, of a run that keeps its best.
        """
        self.watchdog.begin("the evaluation at step", self.step)
        with self.timer.paused():
            values = self.trainer.inference_values(state)
            scores = self.evaluator.scores(values)
            if not scores:
                self.say(f"the evaluation at step {self.step} was interrupted")
                return False
            named = {f"eval/{name}": value for name, value in scores.items()}
            self.writers.scalars(self.step, named)
            self.writers.images(self.step, self.evaluator.pictures(values))
        if self.evaluator.ranking is None:
            return False
        self.scored = self.step, float(scores[self.evaluator.ranking])
        if self.config.train.keep_best == 0:
            return False
        best = self.checkpoints.best_score
        return best is None or self.scored[1] > best

    def save(self, state: TrainState) -> None:
        """Save a checkpoint, in the background from when it is on the host.

        Raises:
            NonFiniteError: the state is not worth saving.
        """
        self.watchdog.begin("the save at step", self.step)
        with self.timer.paused():
            self.meter.check()
            check_finite(state, self.step)
            record = {
                "config": workdirs.to_dict(self.config),
                "model": self.trainer.describe(),
                "deepprism_jax": deepprism_jax.__version__,
            }
            items = {
                "state": state,
                "ema": self.trainer.inference_values(state),
                "data": self.batches.get_state(),
                "config": record,
            }
            step, score = self.scored
            self.checkpoints.save(
                self.step, items, score=score if step == self.step else None
            )
        self.writers.sync()

    def finish(self, state: TrainState) -> int:
        """Save, export if the run is done, and return the exit code."""
        self.save(state)
        saved = self.checkpoints.wait()
        if not saved:
            self.say(f"step {self.step} is not saved, for the reason above")
        if self.step < self.config.train.steps:
            name = self.stop.received.name if self.stop.received else "a signal"
            if saved:
                self.say(f"stopped by {name} after step {self.step}; --resume goes on")
            return self.stop.exit_code if saved else FAILED
        exported = self.export(state)
        return DONE if saved and exported else FAILED

    def export(self, state: TrainState) -> bool:
        """Write the model for use elsewhere; return whether it is on disk."""
        self.watchdog.begin("the export at step", self.step)
        path = self.workdir / workdirs.MODEL
        values = self.trainer.gathered(self.trainer.inference_values(state))
        try:
            for name, model in self.trainer.models(values).items():
                save_pretrained(model, path / name if name else path)
        except OSError as error:
            self.say(f"the model could not be exported: {error}")
            return False
        self.say(f"done after step {self.step}; the model is in {path}")
        return True

    def preparing(self, what: str, number: int) -> None:
        """Take note of what is done before the first step, unless a signal has come.

        Raises:
            StoppedError: one has.
        """
        self.watchdog.begin(what, number)
        if time.monotonic() - self.said > SAY_EVERY:
            self.say(f"{what} {number:,}")
        if self.stop.agreed():
            self.say(f"stopped by a signal at the {what} {number}")
            raise StoppedError

    def say(self, message: str) -> None:
        """Write one line for people."""
        self.said = time.monotonic()
        self.writers.text(self.step, message)

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

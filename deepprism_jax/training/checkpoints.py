"""The checkpoints of a run: the newest few and the best few, each all or nothing.

Each is a directory `STEP` of separate items: `state` (the training state), `ema` (all
that inference needs), `data` (position of the data) and `config`. Orbax's own
`v1.training.Checkpointer` also manages a sequence, but after a save that failed it
raises that failure again at the next one and forgets which old steps are on disk, so
the sequence is managed here, over the v1 functions that write and read one step.
"""

import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from deepprism_jax.paths import PathLike, as_path, remove_tree
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.weights.items import (
    Saving,
    discard,
    leftovers,
    load_items,
    save_items_async,
    steps,
)
from deepprism_jax.weights.manifest import UnreadableError, read_manifest
from deepprism_jax.weights.together import from_first

_PATIENCE = 30.0
"""Seconds that a save has to end once something else has failed."""


class Checkpoints:
    """Saves and restores the items of a run; every process calls every method.

    A save goes on in the background. The next one, `wait` and the end of a `with` block
    wait for it. On the way out by an exception it has half a minute to end, by
    KeyboardInterrupt no time.

    Args:
        directory: holds the steps; made by the first save, on storage that all
            processes share.
        keep: complete checkpoints to keep. One that cannot be read does not count,
            and is not deleted.
        keep_best: those of the highest scores to keep besides.
        say: told in one line what went wrong and what was done about it.
    """

    def __init__(
        self,
        directory: PathLike,
        *,
        keep: int,
        keep_best: int = 0,
        say: Callable[[str], None],
    ):
        self._directory = as_path(directory)
        self._keep, self._keep_best, self.say = keep, keep_best, say
        self._saving: tuple[int, Saving] | None = None
        self._saved = True
        self._found: dict[int, float | None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
        elif self._saving is not None and not isinstance(error, KeyboardInterrupt):
            # The other processes may be elsewhere: nothing can be agreed upon.
            self._saving[1].join(_PATIENCE)

    @property
    def latest(self) -> int | None:
        """Newest step that has a complete checkpoint, or None."""
        self.wait()
        return max(self._scores, default=None)

    @property
    def best_score(self) -> float | None:
        """Highest score of a checkpoint, the one being saved included, or None."""
        return max((s for s in self._scores.values() if s is not None), default=None)

    def save(
        self, step: int, items: Mapping[str, Any], *, score: float | None = None
    ) -> None:
        """Copy the items of a step to the host and save them in the background.

        The arrays may be donated once this returns. A save that fails is told of by
        the next call of a method; what was saved before is intact. A step that is there
        is not written again, unless it could not be read.

        Args:
            step: the step.
            items: see `items.save_items_async`.
            score: how good it is; the higher the better.
        """
        self.wait()
        self._saved = True
        if step in self._scores:
            return
        # Before the save begins, for `_clean` counts it.
        self._scores[step] = score
        try:
            saving = save_items_async(
                self._directory / str(step), items, score=score, after=self._clean
            )
        except OSError as error:
            self._failed(step, error)
        else:
            self._saving = (step, saving)

    def wait(self) -> bool:
        """Wait for the last save and return whether it is on disk."""
        if self._saving is not None:
            (step, saving), self._saving = self._saving, None
            try:
                saving.result()
            except OSError as error:
                self._failed(step, error)
            for old in self._scores.keys() - self._kept():
                del self._scores[old]
        return self._saved

    def restore(self, targets: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the step and the items of the newest checkpoint that can be read.

        Args:
            targets: see `items.load_items`; its shardings need not be those of the
                run that saved.

        Raises:
            PreflightError: there is none.
        """
        self.wait()
        for path in from_first([str(p) for p in leftovers(self._directory)]):
            self.say(f"{path} is a half-written checkpoint; it is ignored")
        problem = "there is none"
        for step in from_first(steps(self._directory))[::-1]:
            try:
                items = load_items(self._directory / str(step), targets)
            except UnreadableError as error:
                problem = f"{step}: {error}"
                self._scores.pop(step, None)
                self.say(
                    f"checkpoint {step} cannot be read: {error}; it is left as it is, "
                    "and the one before is tried"
                )
            else:
                return step, items
        raise PreflightError(
            f"no checkpoint in {self._directory} can be read ({problem}); "
            "choose another --workdir to start anew"
        )

    @property
    def _scores(self) -> dict[int, float | None]:
        """Score of every step that is there, but for those that cannot be read."""
        if self._found is None:
            here = {}
            for step in steps(self._directory):
                with contextlib.suppress(UnreadableError):
                    here[step] = read_manifest(self._directory / str(step))["score"]
            # JSON has no numbers as keys.
            there = from_first([[step, score] for step, score in here.items()])
            self._found = {int(step): score for step, score in there}
        return self._found

    def _failed(self, step: int, error: OSError) -> None:
        self._saved = False
        del self._scores[step]
        newest = max(self._scores, default=None)
        kept = "there is none yet" if newest is None else f"it is {newest}"
        self.say(
            f"checkpoint {step} could not be saved: {error}; "
            f"the newest checkpoint stays as it was ({kept})"
        )

    def _kept(self) -> set[int]:
        """Return which of the steps that are there stay: the newest and the best."""
        newest = sorted(self._scores)[-self._keep :]
        scored = [(s, step) for step, s in self._scores.items() if s is not None]
        best = sorted(scored)[-self._keep_best :] if self._keep_best else []
        return {*newest, *(step for _, step in best)}

    def _clean(self) -> None:
        """Delete what need not stay, and what saves that failed have left.

        Called in the background by process 0, while no other method goes beyond `wait`.
        """
        for path in leftovers(self._directory):
            remove_tree(path)
        for step in self._scores.keys() - self._kept():
            discard(self._directory / str(step))

"""`train.init_from`: a run that begins with the weights of another model."""

from typing import Any

import numpy as np

from deepprism_jax.training.preflight import refusing
from deepprism_jax.training.trainer import Trainer
from deepprism_jax.weights.pretrained import from_pretrained
from deepprism_jax.weights.transfer import transferred


def starting_values(
    trainer: Trainer, source: str, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the values that a trainer is to begin with, and lines on them.

    Args:
        trainer: of the run.
        source: name of a model of the package, or path of an export or a run.
        seed: of the shares of copies, see `weights.transfer`.

    Raises:
        PreflightError: there is no such model, or its weights cannot be carried over.
    """
    with refusing():
        wanted: Any = trainer.model
        model = from_pretrained(type(wanted), source)
        try:
            values, notes = transferred(model, wanted, seed=seed)
        except ValueError as error:
            raise ValueError(f"--init-from {source}: {error}") from None
    width, new = model.options["width"], wanted.options["width"]
    grown = f", of width {width}, made {new} wide" if width != new else ""
    return values, [f"begins with the weights of {source}{grown}", *notes]

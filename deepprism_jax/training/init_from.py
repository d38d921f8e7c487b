"""`train.init_from`: a run that begins with the weights of another model."""

from typing import Any

import numpy as np
from flax import nnx

from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.weights.pretrained import class_name, from_pretrained
from deepprism_jax.weights.transfer import options_of, transferred


def starting_values(
    wanted: nnx.Module, source: str, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the values that a model is to begin with, and lines on them.

    Args:
        wanted: model of the run, without values.
        source: name of a model of the package, or path of an export or a run.
        seed: of the shares of copies, see `weights.transfer`.

    Raises:
        PreflightError: there is no such model, or its weights cannot be carried over.
    """
    try:
        name, cls = class_name(source), type(wanted)
        if name != cls.__name__:
            raise ValueError(
                f"it holds {name}, and this run trains {cls.__name__}: choose the "
                "experiment, or the options, of that class"
            )
        model: Any = from_pretrained(cls, source)
        values, notes = transferred(model, wanted, seed=seed)
    except (ValueError, OSError) as error:
        raise PreflightError(f"--init-from {source}: {error}") from None
    width, new = options_of(model)["width"], options_of(wanted)["width"]
    grown = f", of width {width}, made {new} wide" if width != new else ""
    return values, [f"begins with the weights of {source}{grown}", *notes]

"""`python -m deepprism_jax.weights export`: a trained model as one file for others."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from deepprism_jax.export.programs import CLASSES
from deepprism_jax.files import replacing
from deepprism_jax.weights.pretrained import class_name

Format = Literal["stablehlo", "onnx"]


def export_model(
    source: str | os.PathLike[str],
    output: Path,
    kind: Format = "stablehlo",
    *,
    model: str = "",
) -> tuple[str, ...]:
    """Write a trained model to a file that is run without this package.

    Args:
        source: name of a model in the package, export, training run or checkpoint.
        output: file to make; one that is there stays as it is.
        kind: `stablehlo`, which JAX runs, or `onnx`.
        model: of several models that were trained together, which one.

    Returns:
        Names of the functions in the file.

    Raises:
        FileExistsError: the output is there.
        FileNotFoundError: there is no such model.
        ValueError: it cannot be read, or not be exported so.
        ImportError: a package that writes the format is not installed.
        OSError: the output could not be written.
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output} is there: choose another name, or delete it")
    write = _writer(kind)
    name = class_name(source)
    if name not in CLASSES:
        raise ValueError(f"{source} holds {name}, not one of {', '.join(CLASSES)}")
    loaded = CLASSES[name].from_pretrained(source, model=model)
    with replacing(output) as part:
        return write(loaded, part)


def _writer(kind: Format) -> Callable[[Any, Path], tuple[str, ...]]:
    """Import what writes the format, before anything else is done."""
    if kind == "stablehlo":
        from deepprism_jax.export.stablehlo import write_stablehlo as write
    else:
        from deepprism_jax.export.onnx_file import write_onnx as write
    return write

"""Models as ONNX: a zip archive with one network for each function.

Written by jax2onnx (the extra `onnx`) from layers in the formulation for such runtimes
(`ops/stacked.py`). The number of images is any. Height and width are fixed, those of
`SIDE`: attention and the resampling would make arithmetic of them, which converters
lose track of. `model.json` says what each network takes.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from deepprism_jax.export.programs import Program, programs_of
from deepprism_jax.export.resolve import for_platform
from deepprism_jax.export.stablehlo import DESCRIPTION, describe, write_archive
from deepprism_jax.ops import target

SIDE = 64
"""Height and width of the images."""


def write_onnx(model: Any, path: Path, *, side: int = SIDE) -> tuple[str, ...]:
    """Write the functions of a model as networks, and return their names.

    Raises:
        ValueError: there is nothing to export in such a model.
        ImportError: jax2onnx is not installed.
    """
    programs = programs_of(model)
    small = side // getattr(model, "factor", 1)
    content = {
        f"{name}.onnx": converted(name, program, small)
        for name, program in programs.items()
    }
    content[DESCRIPTION] = describe(model, programs, f"{small} for h and w")
    write_archive(path, content)
    return tuple(content)[:-1]


def converted(name: str, program: Program, small: int) -> bytes:
    """Return one function as a network.

    Args:
        name: of the network.
        program: the function, its arguments of `Program.inputs`.
        small: what stands for h and w in the shapes.
    """

    def function(*operands: jax.Array) -> jax.Array:
        with target.compiling_for(target.ONNX):
            return for_platform(program.function, target.ONNX)(*operands)

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # a line for every value
    network = _converter()(
        function,
        inputs=program.arguments(lambda shape: _shape(shape, small)),
        model_name=name,
        input_names=list(program.inputs),
        output_names=[program.output],
    )
    return _without_notes(network).SerializeToString()


def _without_notes(network: Any) -> Any:
    """Take out what no runtime reads: where every node came from, and what it gives."""
    del network.graph.value_info[:]
    for node in network.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return network


def _shape(text: str, small: int) -> str:
    """Put a number for h and w; `b` is any."""
    sides = [part.strip() for part in text.split(",")]
    return ", ".join(
        side if side == "b" or side.isdecimal() else str(_sized(side, small))
        for side in sides
    )


def _sized(side: str, small: int) -> int:
    factor, _, _ = side.rpartition("*")
    return int(factor or 1) * small


def _converter() -> Callable[..., Any]:
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "ONNX is written by jax2onnx, which is not installed: run "
            "pip install 'deepprism-jax[onnx]'"
        ) from None
    return to_onnx

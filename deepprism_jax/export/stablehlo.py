"""Models as StableHLO: one file for CPUs, GPUs and TPUs, run by JAX alone.

The file is a zip archive with what `jax.export` serialises of every function, such as
`encode` and `decode`, and `model.json`, which says what they take. Three lines run it:

    import zipfile; from jax import export
    file = zipfile.ZipFile("model.stablehlo.zip")
    encode = export.deserialize(bytearray(file.read("encode"))).call

Batch, height and width are any. The programs hold the formulation of each platform
(`lax.platform_dependent`), and none of the kernels that this package brings.
"""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export

import deepprism_jax
from deepprism_jax.export.programs import Program, programs_of
from deepprism_jax.ops import target

PLATFORMS = ("cpu", "cuda", "tpu")
DESCRIPTION = "model.json"


def write_stablehlo(
    model: Any, path: Path, *, platforms: Sequence[str] = PLATFORMS
) -> tuple[str, ...]:
    """Write the programs of a model to a file, and return their names.

    Raises:
        ValueError: there is nothing to export in such a model.
        ImportError: the package `flatbuffers`, which `jax.export` needs, is missing.
    """
    programs = programs_of(model)
    content = {
        name: bytes(lowered(program, platforms).serialize())
        for name, program in programs.items()
    }
    content[DESCRIPTION] = describe(model, programs, "b, h and w are any")
    write_archive(path, content)
    return tuple(programs)


def write_archive(path: Path, content: Mapping[str, bytes]) -> None:
    """Write a zip archive; the same content gives the same bytes."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, data)


def lowered(program: Program, platforms: Sequence[str]) -> export.Exported:
    """Return a program as StableHLO for some platforms."""

    def function(*operands: jax.Array) -> jax.Array:  # jit keeps what it has traced
        return program.function(*operands)

    with target.compiling_for(target.ANY):
        exported = export.export(jax.jit(function), platforms=platforms)
        return exported(*program.arguments())


def read_stablehlo(path: Path) -> dict[str, Callable[..., jax.Array]]:
    """Return the functions in a file, by name.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = json.loads(file.read(DESCRIPTION))["functions"]
            content = {name: bytearray(file.read(name)) for name in names}
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no export ({error}): write one by python -m "
            "deepprism_jax.weights export"
        ) from None
    return {name: export.deserialize(data).call for name, data in content.items()}


def describe(model: Any, programs: Mapping[str, Program], sizes: str) -> bytes:
    """Return what `model.json` says of the functions in a file."""
    text = {
        "class": type(model).__name__,
        "options": dict(model.options),
        "deepprism_jax": deepprism_jax.__version__,
        "jax": jax.__version__,
        "sizes": sizes,
        "functions": {
            name: {
                "takes": {
                    key: f"{jax.numpy.dtype(dtype).name}[{shape}]"
                    for key, (shape, dtype) in program.inputs.items()
                },
                "gives": program.output,
            }
            for name, program in programs.items()
        },
    }
    return (json.dumps(text, indent=2) + "\n").encode()

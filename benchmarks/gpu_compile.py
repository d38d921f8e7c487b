"""The channel convolution on GPUs, as their compiler sees it, without a GPU.

    pip install 'deepprism_jax[cuda]'            # neither a GPU nor a driver is needed
    python benchmarks/gpu_compile.py --chips h100 a100 --json compiled.json

Compiles the three maps of every formulation ahead of time for a described GPU. Nothing
is run and nothing is timed; what is printed is read off the compiled program:

    temporaries   megabytes that it allocates beside its operands and results
    kernels       launches, of them calls of a library (cuDNN), whose algorithm and
                  workspace are chosen only where a GPU is
    moved         megabytes that its kernels are handed and hand on, counted whole
    operations    10^9 multiplications and additions, as XLA counts the form as written
    a product     instructions (PTX) of the longest kernel for each multiplication of a
                  weight and a number; not for reductions, whose kernels are loops
"""

import json
import math
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from deepprism_jax.analysis.plan_gpu import described_gpus
from deepprism_jax.choices import ChannelPadding
from deepprism_jax.ops import banded, reference, shift_and_add, shifted
from deepprism_jax.ops.formulation import Formulation
from deepprism_jax.ops.geometry import Geometry

FORMS = {
    "reference": reference.FORMULATION,
    "shift_and_add": shift_and_add.FORMULATION,
    "banded": banded.FORMULATION,
    "shifted": shifted.FORMULATION,
}
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
}
_FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}


@dataclass(frozen=True)
class Options:
    """What to compile."""

    size: tuple[int, int, int, int] = (16, 32, 32, 256)
    """Batch, height, width, channels of one field."""
    kernel: tuple[int, int, int] = (3, 3, 3)
    """Kernel: height, width, channel."""
    fields: tuple[int, int] = (1, 1)
    """Fields of the input and of the output."""
    strides: tuple[int, int] = (1, 1)
    """Spatial strides."""
    padding: ChannelPadding = "circular"
    """Topology of the channel axis."""
    dtypes: tuple[Literal["bfloat16", "float32"], ...] = ("bfloat16", "float32")
    """Types of x, the kernel and the output."""
    forms: tuple[str, ...] = tuple(FORMS)
    """Formulations."""
    chips: tuple[Literal["h100", "a100"], ...] = ("h100",)
    """GPUs to compile for."""
    json: str = ""
    """File to write the figures to."""


@dataclass(frozen=True)
class Program:
    """What the compiled program shows."""

    chip: str
    dtype: str
    form: str
    part: str
    temporary_bytes: int
    kernels: int
    library_calls: int
    moved_bytes: int
    operations: float
    instructions_a_product: float | None


def device(chip: str) -> Any:
    """Describe a GPU to its compiler."""
    try:
        return described_gpus(chip)[0]
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def _bytes(types: str) -> int:
    """Size of what a type in the text of a program stands for, tuples summed."""
    return sum(
        _BYTES.get(name, 0) * math.prod(int(n) for n in shape.split(",") if n)
        for name, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", types)
    )


def read_program(text: str) -> tuple[int, int, int]:
    """Count kernels, those of them of a library, and the bytes that they are given."""
    entry = text[text.index("\nENTRY") :]
    line = re.compile(r"%?([\w.-]+) = (\(.*?\)|\S+) ([a-z-]+)\(([^)]*)\)")
    sizes, kernels, calls, moved = {}, 0, 0, 0
    for name, types, operation, operands in line.findall(entry):
        sizes[name] = _bytes(types)
        if operation in _FREE:
            continue
        kernels += 1
        calls += operation == "custom-call"
        given = re.findall(r"%([\w.-]+)", operands)
        moved += sizes[name] + sum(sizes.get(operand, 0) for operand in given)
    return kernels, calls, moved


def read_instructions(folder: str) -> float:
    """Count instructions for each multiply-add in the longest kernel of a dump."""
    sources = [path.read_text() for path in Path(folder).glob("*.ptx")]
    kernels = [k for source in sources for k in source.split(".visible .entry")[1:]]
    instruction = re.compile(r"^\s+(?:@!?%\w+ )?[a-z][\w.:]*\s.*;$", re.MULTILINE)
    counts = [
        (len(instruction.findall(k)), len(re.findall(r"\b(?:fma|mul)\.rn\S*f32", k)))
        for k in kernels
    ]
    instructions, products = max(counts, default=(0, 0))
    return instructions / products if products else math.nan


def compile_part(
    options: Options, chip: str, dtype: str, form: str, part: str
) -> Program:
    """Compile one map of a formulation."""
    batch, height, width, depth = options.size
    shape = (*options.kernel, *options.fields)
    geometry = Geometry(height, width, depth, shape, options.padding, options.strides)
    mesh = Mesh(np.array([device(chip)]), ("data",))
    of = partial(
        jax.ShapeDtypeStruct,
        dtype=jnp.dtype(dtype),
        sharding=NamedSharding(mesh, PartitionSpec()),
    )
    x = of((batch, height, width, options.fields[0] * depth))
    g = of((batch, *geometry.out_size, options.fields[1] * depth))
    kernel = of(shape)
    operands = {
        "conv": (x, kernel),
        "input_gradient": (g, kernel),
        "kernel_gradient": (x, g),
    }[part]
    run = jax.jit(partial(getattr(FORMS[form], part), geometry))
    lowered = run.lower(*operands)
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        instructions = read_instructions(folder)
    kernels, calls, moved = read_program(compiled.as_text() or "")
    memory: Any = compiled.memory_analysis()
    # XLA counts operations only where it has a device: the form as the CPU is given it.
    here = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in operands]
    costs: Any = run.lower(*here).cost_analysis()
    return Program(
        chip=chip,
        dtype=dtype,
        form=form,
        part=part,
        temporary_bytes=memory.temp_size_in_bytes,
        kernels=kernels,
        library_calls=calls,
        moved_bytes=moved,
        operations=costs["flops"],
        instructions_a_product=None if calls or "kernel" in part else instructions,
    )


def print_table(options: Options, chip: str, dtype: str, programs: list[Program]):
    """Print the programs for one GPU and type."""
    size = "x".join(map(str, options.size))
    title = f"{size} {dtype}, {options.padding}: compiled for {chip}, not run"
    table = Table(title=title)
    headings = ("", "map", "temporaries", "kernels", "moved", "operations", "a product")
    for number, heading in enumerate(headings):
        side = "right" if number > 1 else "left"
        table.add_column(heading, justify=side, no_wrap=True)
    for p in programs:
        library = f", {p.library_calls} cuDNN" if p.library_calls else ""
        product = p.instructions_a_product
        table.add_row(
            p.form,
            p.part.replace("_", " "),
            f"{p.temporary_bytes / 1e6:.3f} MB",
            f"{p.kernels}{library}",
            f"{p.moved_bytes / 1e6:.1f} MB",
            f"{p.operations / 1e9:.2f} G",
            "" if product is None else f"{product:.1f}",
        )
    console = Console()
    # A file or a pipe has no width: rows stay whole there.
    (console if console.is_terminal else Console(width=120)).print(table)


def main(options: Options) -> None:
    """Compile, print, and write what is asked for."""
    unknown = set(options.forms) - set(FORMS)
    if unknown:
        raise SystemExit(f"error: forms={sorted(unknown)}: choose from {list(FORMS)}")
    programs = []
    for chip in options.chips:
        for dtype in options.dtypes:
            some = [
                compile_part(options, chip, dtype, form, part)
                for form in options.forms
                for part in Formulation._fields
            ]
            print_table(options, chip, dtype, some)
            programs += some
    if options.json:
        content = {
            "jax": jax.__version__,
            "options": asdict(options),
            "compiled, not run": [asdict(program) for program in programs],
        }
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    jax.config.update("jax_platforms", "cpu")
    main(tyro.cli(Options, description=__doc__))

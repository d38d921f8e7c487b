"""The channel convolution on TPUs, estimated by the TPU's own compiler without a TPU.

    pip install 'deepprism_jax[tpu]'
    python benchmarks/tpu_estimate.py --chips v5e v6e --json estimate.json

Compiles every form ahead of time for one chip and prints what the compiler estimates;
nothing is run, so read the ratios on one chip and confirm them on a real one. For XLA's
own operations that is the sum of its `estimated_cycles` over an assumed clock. Of a
Pallas kernel it says nothing: its time is that of its listing's bundles, each as often
as its loops run (`tpu_bundles.py`), or of the maps that it reads and writes where that
is longer. The memory limit is what must be read and written once, over the chip's
published bandwidth.

Estimated are the 3x3x3 convolution, forward and with both gradients (Pallas: with a
bias and its gradient), and the half-block of a residual block (GroupNorm, SiLU,
convolution with bias), forward and backward. Fused, the half-block takes the moments of
x and gives those of y for the next; by XLA it takes those of x itself.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tpu_bundles
import tyro
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from deepprism_jax.choices import ChannelPadding
from deepprism_jax.layers.norm import group_norm
from deepprism_jax.ops import prism_conv
from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.pallas import backward, forward, tiles

Form = Literal["reference", "shift_and_add", "banded", "pallas"]
Shapes = tuple[jax.ShapeDtypeStruct, ...]

# There is no TPU to be looked for, nor a log to be kept.
_QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_LOG_DIR": "disabled",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
_KERNEL = re.compile(
    r'^ *(?:ROOT )?%([\w.-]+) = .*"tpu_custom_call".*"bytes_accessed":"(\d+)"',
    re.MULTILINE,
)


class Chip(NamedTuple):
    """A topology of one chip, and what is assumed of it."""

    topology: str
    gigahertz: float
    bandwidth: float  # of its memory, GB/s, as published
    options: dict[str, Any]


CHIPS: dict[str, Chip] = {
    "v5e": Chip("v5e:1x1", 1.5, 819.0, {}),
    "v4": Chip("v4:1x1x1", 1.05, 1228.0, {"chip_config_name": "megacore"}),
    "v5p": Chip("v5p:1x1x1", 1.75, 2765.0, {}),
    "v6e": Chip("v6e:1x1", 1.75, 1640.0, {}),
}


@dataclass(frozen=True)
class Options:
    """What to estimate."""

    size: tuple[int, int, int, int] = (64, 32, 32, 256)
    """Batch, height, width, channels."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of maps and kernels."""
    padding: ChannelPadding = "circular"
    """Topology of the channel axis."""
    chips: tuple[Literal["v5e", "v4", "v5p", "v6e"], ...] = ("v5e", "v4", "v5p", "v6e")
    """Chips to compile for."""
    forms: tuple[Form, ...] = get_args(Form)
    """Forms of the convolution."""
    half_block: bool = True
    """Estimate the half-block too, with those of `banded` and `pallas` in `forms`."""
    groups: int = 32
    """Groups of its normalisation."""
    json: str = ""
    """File to write the figures to."""


class Estimate(NamedTuple):
    """Milliseconds as the compiler estimates them, and MiB of temporaries."""

    milliseconds: float
    temporaries: float


def conv_subjects(options: Options, geometry: Geometry):
    """Forward pass (x, kernel) and pass with gradients (x, kernel, g) of every form."""

    def by_xla(form: Any):
        once = partial(prism_conv, channel_padding=options.padding, method=form)

        def both(x, kernel, g):
            y, pull = jax.vjp(once, x, kernel)
            return y, pull(g)

        return once, both

    def by_pallas():
        bias = jnp.zeros((1,), jnp.float32)
        once = partial(forward.forward, geometry, bias=bias)

        def both(x, kernel, g):
            return once(x, kernel), backward.backward(geometry, x, kernel, g)

        return once, both

    return {
        form: by_pallas() if form == "pallas" else by_xla(form)
        for form in options.forms
    }


def half_block_subjects(options: Options, geometry: Geometry, shapes: Shapes):
    """The half-block, by XLA around a convolution and fused, with its gradients."""
    x, kernel, g = shapes
    vector = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    channels = x.shape[3]
    parameters = vector((channels,)), vector((channels,)), kernel, vector((1,))

    @jax.custom_vjp
    def pallas(x, kernel, bias):
        return forward.forward(geometry, x, kernel, bias)

    def pallas_backward(operands, g):
        x, kernel, _ = operands
        return backward.backward(geometry, x, kernel, g)

    pallas.defvjp(lambda *operands: (pallas(*operands), operands), pallas_backward)

    def banded(x, kernel, bias):
        y = prism_conv(x, kernel, channel_padding=options.padding, method="banded")
        return y + bias.astype(y.dtype)

    def by_xla(conv, x, g, scale, offset, kernel, bias):
        def run(x, scale, offset, kernel, bias):
            h = group_norm(x, scale, offset, groups=options.groups, silu=True)
            return conv(h, kernel, bias)

        y, pull = jax.vjp(run, x, scale, offset, kernel, bias)
        return y, pull(g)

    def fused(x, g, scale, offset, kernel, bias, moments, g_moments):
        # The moments of x came with it from the half-block before; those of y go on.
        affine, pull = jax.vjp(
            partial(affine_of, options.groups), *moments, scale, offset
        )
        y, mean, variance = forward.activated_forward(
            geometry, x, *affine, kernel, bias
        )
        count = geometry.height * geometry.width
        beta = 2.0 / count * g_moments[1]
        alpha = g_moments[0] / count - beta * mean
        dx, dslope, doffset, dkernel, dbias = backward.activated_backward(
            geometry, x, *affine, kernel, y, alpha, beta, g
        )
        small = pull((-affine[1] * doffset, dslope, doffset))
        return y, mean, variance, dx, dkernel, dbias, small

    moments = (vector((x.shape[0], channels)),) * 2
    plain = (x, g, *parameters)
    subjects = {
        "XLA, banded": (partial(by_xla, banded), plain),
        "XLA, pallas": (partial(by_xla, pallas), plain),
        "pallas, fused": (fused, (*plain, moments, moments)),
    }
    forms = options.forms
    return {n: s for n, s in subjects.items() if any(form in n for form in forms)}


def affine_of(groups: int, mean, variance, scale, offset):
    """GroupNorm as (x - mean) * slope + offset, of the moments [B, C] of x."""

    def over_group(v):
        members = v.reshape(len(v), groups, -1)
        return jnp.repeat(members.mean(-1), members.shape[-1], axis=-1)

    centre = over_group(mean)
    spread = over_group(variance + (mean - centre) ** 2)
    slope = scale * jax.lax.rsqrt(spread + 1e-6)
    return centre, slope, jnp.broadcast_to(offset, slope.shape)


def estimate(chip: Chip, folder: Path, function: Callable, shapes: Any) -> Estimate:
    """Compile for a chip and add up what the compiler says."""
    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=chip.topology,
        chips_per_host_bounds=(1, 1, 1),
        **chip.options,
    )
    mesh = jax.sharding.Mesh(np.array(topology.devices[:1]), ("x",))
    # The compiler may lay out maps as it likes best, as it may inside a network.
    layout = Format(Layout.AUTO, NamedSharding(mesh, PartitionSpec()))
    shutil.rmtree(folder, ignore_errors=True)
    jitted = jax.jit(function, in_shardings=layout, out_shardings=layout)
    compiled = jitted.lower(*shapes).compile()
    text = compiled.as_text() or ""
    entry = text[text.index("\nENTRY ") :]
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', entry)))
    milliseconds = cycles / chip.gigahertz / 1e6
    listings = tpu_bundles.listings(folder)
    for kernel, size in _KERNEL.findall(entry):
        bundles = tpu_bundles.cycles(listings[kernel].read_text())
        computes = bundles / chip.gigahertz / 1e6
        milliseconds += max(computes, int(size) / chip.bandwidth / 1e6)
    plan: Any = compiled.memory_analysis()
    return Estimate(milliseconds, plan.temp_size_in_bytes / 2**20)


def attempt(
    chip: Chip, folder: Path, function: Callable, shapes: Any
) -> Estimate | None:
    """Estimate; None where it does not fit in the chip's memory."""
    try:
        return estimate(chip, folder, function, shapes)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def check_libtpu() -> None:
    """Stop with what to install where the compiler is not there."""
    try:
        topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except Exception as error:
        raise SystemExit(
            "error: there is no TPU compiler (libtpu) here; install it by "
            f"`pip install 'deepprism_jax[tpu]'`\n({error})"
        ) from None


def main(options: Options) -> None:
    """Estimate every subject on every chip and print the tables."""
    folder = Path(tempfile.mkdtemp())
    os.environ["LIBTPU_INIT_ARGS"] = (
        f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
        "--xla_jf_dump_llo_pass_label_regex=final_bundles"
    )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    check_libtpu()
    _, height, width, channels = options.size
    shape = (3, 3, 3, 1, 1)
    geometry = Geometry(height, width, channels, shape, options.padding, (1, 1))
    if not tiles.fits(geometry, options.dtype):
        raise SystemExit(
            f"error: size={options.size}: the Pallas kernels take channels in "
            "multiples of 128; choose others"
        )
    of = partial(jax.ShapeDtypeStruct, dtype=options.dtype)
    shapes = of(options.size), of(shape), of(options.size)
    megabytes = np.prod(options.size) * jnp.dtype(options.dtype).itemsize / 1e6
    figures: list[dict[str, Any]] = []

    def add(chip: str, subject: str, part: str, maps: int, function, shapes) -> None:
        limit = maps * megabytes / CHIPS[chip].bandwidth
        found = attempt(CHIPS[chip], folder, function, shapes)
        figures.append(
            {
                "chip": chip,
                "subject": subject,
                "part": part,
                "milliseconds": found and found.milliseconds,
                "temporaries_mib": found and found.temporaries,
                "memory_limit_ms": limit,
            }
        )

    try:
        for chip in options.chips:
            for name, (once, both) in conv_subjects(options, geometry).items():
                add(chip, name, "forward", 2, once, shapes[:2])
                # Forward reads x, writes y; the gradients read x and g, write dx.
                add(chip, name, "with gradients", 5, both, shapes)
            if options.half_block:
                subjects = half_block_subjects(options, geometry, shapes)
                for name, (function, arguments) in subjects.items():
                    # The gradients read g, y and x, and write dx.
                    add(chip, name, "half-block", 6, function, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(options, figures)


def report(options: Options, figures: list[dict[str, Any]]) -> None:
    """Print a table and write the file."""
    size = "x".join(map(str, options.size))
    assumed = ", ".join(
        f"{name} {CHIPS[name].gigahertz} GHz and {CHIPS[name].bandwidth:.0f} GB/s"
        for name in options.chips
    )
    table = Table(
        title=f"Estimates by the compiler, not measurements: 3x3x3, {size}, "
        f"{options.dtype}, {options.padding}",
        caption=f"assumed: {assumed}; jax {jax.__version__}",
    )
    headings = "chip", "form", "", "ms (estimate)", "/ memory limit", "temporaries, MiB"
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 3 else "right")
    for row in figures:
        cells = ["does not fit", "", ""]
        if row["milliseconds"] is not None:
            ratio = row["milliseconds"] / row["memory_limit_ms"]
            temporaries = row["temporaries_mib"]
            cells = [f"{row['milliseconds']:.3f}", f"{ratio:.2f}", f"{temporaries:.1f}"]
        table.add_row(row["chip"], row["subject"], row["part"], *cells)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    if options.json:
        facts = {
            "benchmark": "tpu_estimate",
            "nature": "estimates by the compiler, not measurements",
            "jax": jax.__version__,
            "size": options.size,
            "dtype": options.dtype,
            "padding": options.padding,
            "assumed": {
                name: {
                    "gigahertz": CHIPS[name].gigahertz,
                    "gigabytes_per_second": CHIPS[name].bandwidth,
                }
                for name in options.chips
            },
            "figures": figures,
        }
        Path(options.json).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

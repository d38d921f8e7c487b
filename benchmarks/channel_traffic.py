"""What devices that share the channels of every feature map send each other.

    python benchmarks/channel_traffic.py
    python benchmarks/channel_traffic.py --topology v5e:4x4 --width 1024 --size 512 512

Compiles forward and backward pass of one 3x3 layer, and of the whole KL autoencoder,
with C channels cut over the devices of one axis, and reads the collectives off the
compiled program: DeepPrism's halo beside the gathered map of a dense layer. Nothing is
run. Without `--topology` the devices are virtual ones of this processor; the compiler
for TPUs needs `pip install -e '.[tpu]'`, and no TPU.

Sizes are those of the results, on one device. What is summed and scattered counts as
one device's part on CPUs, and as the whole on TPUs, whose compiler sums the whole map
on every device and then cuts it; `formula` counts the whole.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from report import Report, table

from deepprism_jax.analysis.plan_program import (
    Collective,
    collectives,
    exceeded,
    memory,
)
from deepprism_jax.analysis.plan_topology import described_devices, parse_slice
from deepprism_jax.choices import ChannelPadding
from deepprism_jax.layers import make_conv
from deepprism_jax.layers.functional import Functional
from deepprism_jax.layers.remat import Remat, rematerializing
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.ops.channel_shards import over_channels, share
from deepprism_jax.ops.target import compiling_for

Kind = Literal["deepprism", "prism_separable", "dense"]
Subject = Literal["layer", "autoencoder"]

AXIS = "channel"


@dataclass(frozen=True)
class Options(Report):
    """What to compile."""

    subjects: tuple[Subject, ...] = ("layer", "autoencoder")
    """A hidden layer of kernel size 3, and the autoencoder of the paper."""
    kinds: tuple[Kind, ...] = ("deepprism", "dense")
    """Kinds of convolution."""
    size: tuple[int, int] = (32, 32)
    """Height and width of the images, and of the layer's map."""
    width: int = 256
    """Channels C of every feature map."""
    batch: int = 1
    """Images that the devices of the axis share."""
    channel: int = 4
    """Devices on the channel axis; with a topology all of its devices."""
    heads: int = 1
    """Heads of the autoencoder's attention."""
    attention: bool = True
    """Attention in the middle of encoder and decoder."""
    downsamples: int = 2
    """Its 2x resamplings."""
    blocks: int = 2
    """Its residual blocks a level."""
    padding: ChannelPadding = "circular"
    """Topology of the channel axis."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Compute type; parameters are float32."""
    remat: Remat = "none"
    """Activations computed again in the backward pass."""
    topology: str = ""
    """Slice of TPUs to compile for, for example v5e:4x4."""


class Traffic(NamedTuple):
    """What a compiled program says, of one device."""

    subject: str
    kind: str
    devices: int
    collectives: tuple[Collective, ...]
    """Of everything."""
    formula: int | None
    """Bytes of a layer's halo or of its gathered and scattered map."""
    needed: int
    """Bytes of memory; what the compiler names where it makes no program."""
    fits: bool
    seconds: float
    """What compiling took here."""

    @property
    def bytes(self) -> int:
        """Size of the results of all collectives."""
        return sum(collective.bytes for collective in self.collectives)


def mesh_of(options: Options) -> Mesh:
    """One axis of devices, virtual or described."""
    if options.topology:
        try:
            devices = described_devices(parse_slice(options.topology))
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None
    else:
        devices = jax.devices()[: options.channel]
        if len(devices) < options.channel or options.channel < 1:
            raise SystemExit(
                f"error: --channel {options.channel}: there are {len(jax.devices())} "
                "virtual devices"
            )
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def layer(options: Options, kind: Kind) -> tuple[Callable[[], Any], Callable]:
    """Make a hidden layer, and pull its own result back through it."""

    def make():
        return make_conv(
            kind,
            options.width,
            options.width,
            channel_padding=options.padding,
            dtype=jnp.dtype(options.dtype),
            rngs=nnx.Rngs(0),
        )

    def gradients(functional, values, x):
        y, pull = jax.vjp(lambda values, x: functional.bind(values)(x), values, x)
        return pull(y)

    return make, gradients


def autoencoder(options: Options, kind: Kind) -> tuple[Callable[[], Any], Callable]:
    """Make the autoencoder, and take the gradients of its mean square error."""

    def make():
        return AutoencoderKL(
            width=options.width,
            conv=kind,
            heads=options.heads,
            attention=options.attention,
            downsamples=options.downsamples,
            blocks=options.blocks,
            channel_padding=options.padding,
            dtype=options.dtype,
            rngs=nnx.Rngs(0),
        )

    def gradients(functional, values, x):
        def error(values):
            return jnp.mean(jnp.square(functional.bind(values).reconstruct(x) - x))

        return jax.grad(error)(values), x

    return make, gradients


def lower(options: Options, subject: Subject, kind: Kind, mesh: Mesh) -> Any:
    """Lower gradients of a subject, its channels cut over the mesh."""
    make, gradients = {"layer": layer, "autoencoder": autoencoder}[subject](
        options, kind
    )
    functional = Functional(nnx.eval_shape(make))
    cut = {
        name: PartitionSpec()
        if axis is None or mesh.size == 1
        else PartitionSpec(*[None] * axis, AXIS)
        for name, axis in functional.channel_axes.items()
    }
    channels, dtype, spec = 3, jnp.float32, PartitionSpec()
    if subject == "layer":
        channels, dtype = options.width, jnp.dtype(options.dtype)
        spec = PartitionSpec(None, None, None, AXIS)

    def body(values, x):
        with over_channels(AXIS, mesh.size), rematerializing(options.remat):
            return gradients(functional, values, x)

    run = jax.shard_map(
        body, mesh=mesh, in_specs=(cut, spec), out_specs=(cut, spec), check_vma=False
    )

    def described(shape: Any, dtype: Any, spec: PartitionSpec):
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    values = {
        name: described(value.shape, value.dtype, cut[name])
        for name, value in functional.shapes.items()
    }
    x = described((options.batch, *options.size, channels), dtype, spec)
    with compiling_for("tpu" if options.topology else "cpu"):
        return jax.jit(run).lower(values, x)


def formula(options: Options, kind: Kind) -> int:
    """Bytes of a layer's collectives of maps, forward and backward.

    A channel convolution takes one channel from either neighbour, and gives back what
    pulls on it. A dense one gathers all channels, and adds up what pulls on them.
    """
    channels = options.width if kind == "dense" else 2
    positions = options.batch * options.size[0] * options.size[1]
    return 2 * positions * channels * jnp.dtype(options.dtype).itemsize


def measure(options: Options, subject: Subject, kind: Kind, mesh: Mesh) -> Traffic:
    """Compile a subject, and read the program."""
    began = time.perf_counter()
    lowered = lower(options, subject, kind, mesh)
    found: list[Collective] = []
    fits = True
    try:
        compiled = lowered.compile()
        found, needed = collectives(compiled.as_text() or ""), memory(compiled).peak
    except jax.errors.JaxRuntimeError as error:
        too_large = exceeded(str(error))
        if too_large is None:
            raise
        fits, needed = False, too_large[0]
    return Traffic(
        subject=subject,
        kind=kind,
        devices=mesh.size,
        collectives=tuple(found),
        formula=formula(options, kind) if subject == "layer" else None,
        needed=needed,
        fits=fits,
        seconds=time.perf_counter() - began,
    )


_COLUMNS = (
    "collective-permute",
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
)


def row(traffic: Traffic) -> list[str]:
    """One line of the table."""
    by_kind = {collective.kind: collective for collective in traffic.collectives}
    cells = [
        f"{mebibytes(c.bytes)} ({c.count})" if (c := by_kind.get(kind)) else ""
        for kind in _COLUMNS
    ]
    return [
        f"{traffic.subject}, {traffic.kind}",
        *cells,
        mebibytes(traffic.bytes) if traffic.fits else "",
        "" if traffic.formula is None else mebibytes(traffic.formula),
        mebibytes(traffic.needed) + ("" if traffic.fits else ", does not fit"),
    ]


def mebibytes(size: int) -> str:
    """Bytes in MiB, with enough digits for small ones."""
    return f"{size / 2**20:.4f}" if size < 2**20 else f"{size / 2**20:.1f}"


def main(options: Options) -> None:
    """Compile, print, and write what is asked for."""
    if options.plot:
        raise SystemExit("error: --plot: there is nothing to draw; use --json")
    options.check()
    mesh = mesh_of(options)
    found = []
    try:
        share(options.width, mesh.size, "width")
        for subject in options.subjects:
            for kind in options.kinds:
                found.append(measure(options, subject, kind, mesh))
    except ValueError as error:
        raise SystemExit(f"error: {str(error).splitlines()[0]}") from None
    size = "x".join(map(str, (options.batch, *options.size, options.width)))
    where = options.topology or "virtual devices"
    table(
        f"{size} {options.dtype} over {mesh.size} devices ({where}): MiB a device and "
        "(number) of each collective",
        ("", *_COLUMNS, "sum", "formula", "memory"),
        map(row, found),
    )
    figures = [
        {
            **traffic._asdict(),
            "collectives": [c._asdict() for c in traffic.collectives],
        }
        for traffic in found
    ]
    options.write_json("channel_traffic", compiled_not_run=figures)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    chosen = tyro.cli(Options, description=__doc__)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(chosen.channel, 1))
    main(chosen)

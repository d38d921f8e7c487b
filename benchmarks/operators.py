"""The channel convolution and its residual block, against what else there is.

    python benchmarks/operators.py --size 8 32 32 256
    taskset -c 0 python benchmarks/operators.py       # on one core
    python benchmarks/operators.py --subject block --dtype bfloat16

`convolution` times a 3x3x3 one of one field, channels on a circle: forward, and forward
with both gradients. Beside the formulations of `prism_conv` (`reference` is XLA's 3-D
convolution) stand a copy of the array; a C kernel without a framework (`limit.c`,
compiled on the spot, float32: the practical limit); dense, grouped and depthwise ones
of as many channels in JAX; and, where torch is installed, its Conv3d as in the paper,
what torch.compile makes of it and of a shift-and-add, and its dense, grouped and
depthwise ones. `block` times x + 2 * (GroupNorm, SiLU, convolution)(x), DeepPrism and
dense, in JAX and torch. Subjects take turns in short bursts and the median of each is
printed: read the ratios. Results are checked first.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import c_kernel
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from plotting import draw_bars
from report import Report, table
from timing import Pair, Timing, interleave

from deepprism_jax.layers import ResBlock, conv_factory
from deepprism_jax.ops import prism_conv
from deepprism_jax.ops.grouped import grouped_conv
from deepprism_jax.ops.native import library
from deepprism_jax.ops.prism_conv import Method
from deepprism_jax.training.allocator import keep_memory

_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Options(Timing, Report):
    """What to measure."""

    subject: Literal["convolution", "block"] = "convolution"
    """The operator alone, or a residual block."""
    size: tuple[int, int, int, int] = (8, 32, 32, 256)
    """Batch, height, width, channels; channels a multiple of 32."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the arrays."""
    methods: tuple[Method, ...] = ("native", "shift_and_add", "banded", "reference")
    """Formulations of `prism_conv`; `native` where it is built."""
    groups: int = 32
    """Groups of the grouped convolutions."""
    depthwise_size: Literal[3, 5] = 3
    """Side of the depthwise kernels; all others are 3x3."""
    norm_groups: int = 32
    """Groups of the block's GroupNorms."""
    torch: bool = True
    """Measure torch too, where it is installed."""
    torch_compile: bool = True
    """Measure what torch.compile makes of torch's; compiling takes a minute."""


def jax_pair(function: Callable[..., jax.Array], *operands: Any) -> Pair:
    """Compile a function of all operands but the last, which is its cotangent."""
    *inputs, g = operands

    def with_gradients(*operands):
        *inputs, g = operands
        y, pull = jax.vjp(function, *inputs)
        return y, *pull(g)

    once, both = jax.jit(function), jax.jit(with_gradients)
    return (
        lambda: (jax.block_until_ready(once(*inputs)),),
        lambda: jax.block_until_ready(both(*inputs, g)),
    )


def jax_convolutions(options: Options, x, kernel, g) -> dict[str, Pair]:
    """The formulations, then dense, grouped and depthwise convolutions."""
    channels, draw = options.size[-1], np.random.default_rng(1).normal
    pairs = {
        f"prism, {method}": jax_pair(partial(prism_conv, method=method), x, kernel, g)
        for method in options.methods
        if method != "native" or library.loaded()
    }
    kinds = {
        "dense": (3, 1),
        f"{options.groups} groups": (3, options.groups),
        "depthwise": (options.depthwise_size, channels),
    }
    for name, (size, groups) in kinds.items():
        shape = size, size, channels // groups, channels
        weights = jnp.asarray(draw(size=shape), x.dtype)
        conv = partial(grouped_conv, groups=groups)
        pairs[f"JAX {name}"] = jax_pair(conv, x, weights, g)
    return pairs


def jax_blocks(options: Options, x, g) -> dict[str, Pair]:
    """Residual blocks of DeepPrism and of dense convolutions."""
    pairs = {}
    kinds: tuple[Any, ...] = ("deepprism", "dense")
    for kind in kinds:
        conv = conv_factory(kind, dtype=x.dtype)
        block = ResBlock(
            options.size[-1],
            conv=conv,
            norm_groups=options.norm_groups,
            rngs=nnx.Rngs(0),
        )
        graph, state = nnx.split(block)
        pairs[f"JAX {kind}"] = jax_pair(_applied(graph), state, x, g)
    return pairs


def _applied(graph: Any) -> Callable[..., jax.Array]:
    return lambda state, x: nnx.merge(graph, state)(x)


def subjects(options: Options) -> tuple[str, dict[str, Pair]]:
    """What is measured, by name, and the name of what the others are compared with."""
    draw = np.random.default_rng(0).normal
    x, g = (draw(size=options.size).astype(np.float32) for _ in range(2))
    kernel = draw(size=(3, 3, 3, 1, 1)).astype(np.float32)
    arrays = [jnp.asarray(a, options.dtype) for a in (x, kernel, g)]
    torch: Any = None
    if options.torch and importlib.util.find_spec("torch"):
        import torch_subjects as torch
    common = {"dtype": options.dtype, "compiled": options.torch_compile}
    if options.subject == "block":
        pairs = jax_blocks(options, arrays[0], arrays[2])
        if torch:
            common["norm_groups"] = options.norm_groups
            pairs |= torch.blocks(x, g, **common)
        return "JAX deepprism", pairs
    pairs = c_kernel.subjects(x, kernel, g) | jax_convolutions(options, *arrays)
    zeros = partial(prism_conv, channel_padding="zero", method="shift_and_add")
    expected = {"on a circle": pairs["C kernel"], "zeros": jax_pair(zeros, *arrays)}
    checked = {name: "on a circle" for name in pairs if name.startswith("prism")}
    if torch:
        found = torch.convolutions(
            x,
            kernel,
            g,
            groups=options.groups,
            depthwise_size=options.depthwise_size,
            **common,
        )
        pairs |= found
        checked |= {name: "zeros" for name in found if "Conv3d" in name}
        checked |= {name: "on a circle" for name in found if "shift" in name}
    wanted = {name: as_rows(gradients()) for name, (_, gradients) in expected.items()}
    for name, padding in checked.items():
        check(name, as_rows(pairs[name][1]()), wanted[padding], options.dtype)
    return "C kernel", pairs


def as_rows(results: Sequence[Any]) -> list[np.ndarray]:
    """Output and gradients as float32: two [B, H, W, C], and [3, 3, 3]."""
    if hasattr(results[0], "detach"):  # torch
        results = [a.detach().float().numpy() for a in results]
        if results[-1].ndim == 5:  # its Conv3d, on [B, C, H, W]
            *maps, kernel = results
            results = [a.transpose(0, 2, 3, 1) for a in maps]
            results.append(kernel[0, 0].transpose(1, 2, 0))
    y, dx, dk = (np.asarray(a, np.float32) for a in results)
    return [y.copy(), dx.copy(), dk.reshape(3, 3, 3)]


def check(
    name: str, found: list[np.ndarray], wanted: list[np.ndarray], dtype: str
) -> None:
    """Stop where an output or a gradient is not what it should be."""
    for value, expected in zip(found, wanted, strict=True):
        difference = np.abs(value - expected).max() / np.abs(expected).max()
        if not difference < _TOLERANCE[dtype]:
            raise SystemExit(f"error: {name} differs by {difference:.1e}")


def check_sizes(options: Options) -> None:
    """Stop at what the subjects, the C kernel among them, do not take."""
    channels = options.size[-1]
    if channels % 32 or not 0 < channels <= 1 << 16 or min(options.size) < 1:
        raise SystemExit(
            f"error: --size {' '.join(map(str, options.size))}: sizes must be "
            "positive, channels a multiple of 32 up to 65536"
        )
    for name, groups in (
        ("groups", options.groups),
        ("norm-groups", options.norm_groups),
    ):
        if groups < 1 or channels % groups:
            raise SystemExit(
                f"error: --{name} {groups} must divide {channels} channels"
            )


def main(options: Options) -> None:
    """Measure, print, and write what is asked for."""
    options.check()
    check_sizes(options)
    keep_memory()
    base, pairs = subjects(options)
    parts = ("forward", "with gradients")
    runs = {
        (part, name): run
        for name, pair in pairs.items()
        for part, run in zip(parts, pair, strict=True)
        if (part, name) != ("with gradients", "copy")
    }
    times = interleave(runs, options)
    medians = {
        part: {name: times[part, name] for name in pairs if (part, name) in times}
        for part in parts
    }
    rows = []
    for name in pairs:
        cells = []
        for part in parts:
            if name in medians[part]:
                value = medians[part][name]
                cells += [f"{value:.2f}", f"{value / medians[part][base]:.2f}"]
        rows.append((name, *cells, *[""] * (4 - len(cells))))
    size = "x".join(map(str, options.size))
    title = f"{options.subject}, {size}, {options.dtype}, {options.clock_used} time"
    headings = [text for part in parts for text in (f"{part} (ms)", f"/ {base}")]
    table(title, ("", *headings), rows)
    options.write_json("operators", clock=options.clock_used, milliseconds=medians)
    if options.plot:
        draw_bars(options.plot, title, {f"{n} (ms)": m for n, m in medians.items()})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

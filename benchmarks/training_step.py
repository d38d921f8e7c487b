"""Rate and memory of a training step: DeepPrism beside dense, in JAX and in torch.

    python benchmarks/training_step.py --widths 128 256 --batch-sizes 8 32
    taskset -c 0 python benchmarks/training_step.py --dtype bfloat16     # on one core

For the autoencoder of the paper at 32 px with mean square and KL terms (forward,
backward, clipping, Adam, moving average): parameters; what the compiled step holds in
memory at its peak, by the compiler's own account (arguments + temporaries), which torch
does not give; the time of a step, of a forward pass, and of what follows the backward
pass. Where torch is installed, the same network of its own layers stands beside it,
DeepPrism as the paper's Conv3d. Subjects take turns, and the medians are printed.
"""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from plotting import draw_bars
from report import Report, table
from timing import Run, Timing, cores, held, measure

from deepprism_jax.ops.native import library
from deepprism_jax.training.allocator import keep_memory, start_with_tcmalloc
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.config import Config, ModelConfig, TrainConfig
from deepprism_jax.training.optimizer import make_optimizer
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.state import move_average


@dataclass(frozen=True)
class Options(Timing, Report):
    """What to measure."""

    widths: tuple[int, ...] = (128, 256)
    """Channels of the hidden layers."""
    kinds: tuple[Literal["deepprism", "dense"], ...] = ("deepprism", "dense")
    """Kinds of convolution."""
    batch_sizes: tuple[int, ...] = (8,)
    """Images a step."""
    blocks: int = 2
    """Residual blocks a level of the encoder; the decoder has one more."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; parameters stay float32."""
    plain: bool = False
    """Measure DeepPrism without the C++ kernels too, where they are built."""
    torch: bool = True
    """Measure torch too, where it is installed."""
    bursts: int = 5
    budget: float = 20.0


@dataclass
class Subject:
    """One network at one batch size, its runs and what they took in milliseconds."""

    name: str
    batch_size: int
    parameters: int
    bytes: int | None
    runs: dict[str, Run]
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and batch size."""
        return f"{self.name}, batch {self.batch_size}"

    @property
    def rate(self) -> float:
        """Images a second."""
        return 1e3 * self.batch_size / self.milliseconds["step"]


def jax_subject(
    options: Options, width: int, kind: Any, batch_size: int, kernels: bool
) -> Subject:
    """Compile the trainer's step, reconstruction and optimizer."""
    os.environ["DEEPPRISM_NATIVE"] = str(int(kernels))
    library.register.cache_clear()
    config = Config(
        model=ModelConfig(width=width, conv=kind, blocks=options.blocks),
        train=TrainConfig(batch_size=batch_size, dtype=options.dtype),
    )
    trainer = AutoencoderTrainer(config, make_mesh())
    batch = trainer.shard_batch({"image": pixels(batch_size)})
    state = trainer.init()
    values = jax.tree.map(jnp.copy, trainer.inference_values(state))
    step = trainer.lower_step().compile()
    plan: Any = step.memory_analysis()
    runs = {
        "step": held(lambda state: step(state, batch, None)[0], state),
        "forward": lambda: jax.block_until_ready(
            trainer.reconstruct(values, batch["image"])
        ),
        "update": update_run(trainer, values),
    }
    for run in runs.values():  # traced now, with or without kernels
        run()
    return Subject(
        name=f"JAX {kind}, C = {width}{'' if kernels else ', no kernels'}",
        batch_size=batch_size,
        parameters=sum(leaf.size for leaf in values.values()),
        bytes=plan.argument_size_in_bytes + plan.temp_size_in_bytes,
        runs=runs,
    )


def update_run(trainer: AutoencoderTrainer, values: dict[str, jax.Array]) -> Run:
    """What follows the backward pass: clipping, optimizer, moving average."""
    config = trainer.config
    optimizer = make_optimizer(config.optimizer, trainer.schedule, values)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), values)

    @partial(jax.jit, donate_argnums=0)
    def update(state, gradients):
        params, average, opt_state = state
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params: Any = optax.apply_updates(params, updates)
        step = jnp.zeros((), jnp.int32)
        return params, move_average(average, params, 0.999, step), opt_state

    params, average = (jax.tree.map(jnp.copy, values) for _ in range(2))
    state = (params, average, optimizer.init(values))
    return held(lambda state: update(state, gradients), state)


def torch_subjects(options: Options, width: int, batch_size: int) -> Iterator[Subject]:
    """The same network in torch; DeepPrism in both layouts of its kernel."""
    import torch
    from torch_autoencoder import Training

    torch.set_num_threads(cores())
    images = torch.from_numpy(pixels(batch_size)).permute(0, 3, 1, 2).contiguous()
    layouts: dict[str, tuple[Any, ...]]
    layouts = {"deepprism": ("contiguous", "channels_last"), "dense": ("contiguous",)}
    for kind in options.kinds:
        for layout in layouts[kind]:
            twin = Training(
                kind, width, options.blocks, layout=layout, dtype=options.dtype
            )
            yield Subject(
                name=f"torch {kind}, C = {width}, {layout}",
                batch_size=batch_size,
                parameters=twin.parameters,
                bytes=None,
                runs={
                    "step": partial(twin.step, images),
                    "forward": partial(twin.forward, images),
                    "update": twin.update,
                },
            )


def pixels(batch_size: int) -> np.ndarray:
    """Images of noise, uint8 [B, 32, 32, 3]."""
    draw = np.random.default_rng(0).integers
    return draw(0, 256, (batch_size, 32, 32, 3)).astype(np.uint8)


def subjects(options: Options) -> list[Subject]:
    """All that is measured."""
    built = library.loaded()
    with_torch = options.torch and importlib.util.find_spec("torch")
    made = []
    for width in options.widths:
        for batch_size in options.batch_sizes:
            for kind in options.kinds:
                plain = options.plain and built and kind == "deepprism"
                for kernels in (built, False) if plain else (built,):
                    made.append(jax_subject(options, width, kind, batch_size, kernels))
            if with_torch:
                made += torch_subjects(options, width, batch_size)
    os.environ["DEEPPRISM_NATIVE"] = str(int(built))
    library.register.cache_clear()
    return made


def row(subject: Subject) -> tuple[str, ...]:
    """A line of the table."""
    step, forward, update = (
        subject.milliseconds[part] for part in ("step", "forward", "update")
    )
    return (
        subject.label,
        f"{subject.parameters:,}",
        "" if subject.bytes is None else f"{subject.bytes / 2**20:,.0f}",
        f"{subject.rate:.1f}",
        f"{step:.0f}",
        f"{forward:.0f}",
        f"{step / forward:.2f}",
        f"{update / step:.1%}",
    )


def main(options: Options) -> None:
    """Measure, print, and write what is asked for."""
    options.check()
    keep_memory()
    try:
        measured = subjects(options)
    except ValueError as error:  # a width that the network cannot have
        raise SystemExit(f"error: {error}") from None
    measure(measured, options)
    title = f"training step, 32 px, {options.dtype}, {options.clock_used} time"
    headings = ("network", "parameters", "memory (MiB)", "images/s", "step (ms)")
    headings += ("forward (ms)", "step / forward", "update")
    table(title, headings, map(row, measured))
    rows = [
        {
            "name": one.name,
            "batch_size": one.batch_size,
            "parameters": one.parameters,
            "bytes": one.bytes,
            "images_per_second": one.rate,
            "milliseconds": one.milliseconds,
        }
        for one in measured
    ]
    options.write_json("training_step", clock=options.clock_used, rows=rows)
    if options.plot:
        rates = {one.label: one.rate for one in measured}
        memory = {one.label: one.bytes / 2**20 for one in measured if one.bytes}
        panels = {"images a second": rates, "memory of a step (MiB)": memory}
        draw_bars(options.plot, title, panels)


if __name__ == "__main__":
    start_with_tcmalloc()
    main(tyro.cli(Options, description=__doc__))

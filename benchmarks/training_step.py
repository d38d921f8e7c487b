"""Memory and rate of a training step: DeepPrism beside dense, at the same width.

    python benchmarks/training_step.py --widths 128 256 --batch-size 8

Prints, for the autoencoder of the paper at 32 px with mean square and KL terms
(forward, backward, Adam, moving average): parameters; what the compiled step holds in
memory at its peak, by the compiler's own account (arguments + temporaries); and images
a second, the median of interleaved bursts, so that a busy machine slows both alike.
Where the C++ kernels are built, each is measured with and without them.
"""

import os
import statistics
import time
from dataclasses import dataclass

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from deepprism_jax.ops.native import library
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.training.config import Config, ModelConfig, TrainConfig
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.trainer import Trainer


@dataclass(frozen=True)
class Options:
    """What to measure."""

    widths: tuple[int, ...] = (128, 256)
    """Channels of the hidden layers."""
    kinds: tuple[str, ...] = ("deepprism", "dense")
    """Kinds of convolution."""
    batch_size: int = 8
    """Images a step."""
    bursts: int = 7
    """Timed steps of each, in turn."""


class Subject:
    """One compiled step, and how long it took each time."""

    def __init__(self, width: int, kind: str, batch_size: int, kernels: bool):
        os.environ["DEEPPRISM_NATIVE"] = str(int(kernels))
        library.loaded.cache_clear()
        config = Config(
            model=ModelConfig(width=width, conv=kind),  # pyright: ignore
            train=TrainConfig(batch_size=batch_size),
        )
        self.name = f"{kind}, C = {width}{', C++ kernels' if kernels else ''}"
        self.batch_size = batch_size
        self.trainer = Trainer(config, make_mesh())
        pixels = np.random.default_rng(0).integers(0, 256, (batch_size, 32, 32, 3))
        self.batch = self.trainer.shard_batch({"image": pixels.astype(np.uint8)})
        self.state = self.trainer.init()
        self.plan = self.trainer.lower_step().compile().memory_analysis()
        self.run()
        self.seconds: list[float] = []

    def run(self) -> float:
        """Take one step and return its seconds."""
        start = time.perf_counter()
        self.state, metrics = self.trainer.step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - start

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    @property
    def mebibytes(self) -> float:
        """Arguments and temporaries of the step."""
        arguments = self.plan.argument_size_in_bytes
        return (arguments + self.plan.temp_size_in_bytes) / 2**20


def main(options: Options) -> None:
    """Measure and print the table."""
    keep_memory()
    built = library.loaded()
    subjects = [
        Subject(width, kind, options.batch_size, kernels)
        for width in options.widths
        for kind in options.kinds
        for kernels in ((True, False) if built else (False,))
    ]
    for _ in range(options.bursts):
        for subject in subjects:
            subject.seconds.append(subject.run())
    table = Table(title=f"training step, 32 px, batch {options.batch_size}")
    for column in ("network", "parameters", "memory", "images/s", "ms a step"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for subject in subjects:
        seconds = statistics.median(subject.seconds)
        table.add_row(
            subject.name,
            f"{subject.parameters:,}",
            f"{subject.mebibytes:,.0f} MiB",
            f"{subject.batch_size / seconds:.1f}",
            f"{1e3 * seconds:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

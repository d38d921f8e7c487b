"""Time of a denoiser's training step and evaluation: DeepPrism beside dense.

    taskset -c 0 python benchmarks/denoisers.py                      # both, on one core
    taskset -c 0 python benchmarks/denoisers.py --systems sinddm --size 48 64

For single-image diffusion a step of one copy at the finest scale of an image of that
size, as the experiments have it, and the same for several models together; for latent
diffusion a step of latents of 8 x 8 x 3 numbers. An evaluation is what every step of
a sampler needs. Subjects take turns, and the medians are printed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from report import Report, table
from timing import Run, Timing, held, measure

from configs import CONFIGS
from deepprism_jax.layers.functional import Functional
from deepprism_jax.training.allocator import keep_memory, start_with_tcmalloc
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.ldm.trainer import LDMTrainer
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.sinddm.config import SinDDMConfig
from deepprism_jax.training.sinddm.trainer import SinDDMTrainer


@dataclass(frozen=True)
class Options(Timing, Report):
    """What to measure."""

    systems: tuple[Literal["sinddm", "ldm"], ...] = ("sinddm", "ldm")
    """Single-image diffusion, latent diffusion, or both."""
    kinds: tuple[Literal["deepprism", "dense"], ...] = ("deepprism", "dense")
    """Kinds of convolution."""
    size: tuple[int, int] = (120, 160)
    """Height and width of the single image."""
    together: int = 8
    """Models of single images that are trained together; 1 leaves it out."""
    width: int = 0
    """Channels of the hidden layers; 0 takes those of the experiments."""
    batch_size: int = 64
    """Latents at once."""
    bursts: int = 5
    budget: float = 20.0


@dataclass
class Subject:
    """One network, its runs and what they took in milliseconds."""

    name: str
    parameters: int
    images: int
    """Images, or models, that a run works on."""
    runs: dict[str, Run]
    milliseconds: dict[str, float] = field(default_factory=dict)


def of_single_images(options: Options, kind: str, models: int) -> Subject:
    """Measure a step and an evaluation at the finest scale."""
    config: SinDDMConfig = CONFIGS[f"sinddm_{kind}"].get_config()
    config = _resized(config, options.width)
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = jax.image.resize(coarse.astype(np.float32), (*options.size, 3), "linear")
    image = np.asarray(smooth).astype(np.uint8)
    trainer = SinDDMTrainer(
        config, _mesh(), {f"image {number}": image for number in range(models)}
    )
    finest = len(trainer.process.sizes) - 1
    runs = {"step": _steps(trainer, {"scale": finest})}
    if models == 1:
        values = trainer.inference_values(trainer.init())
        evaluate = jax.jit(lambda v, *inputs: trainer.network.bind(v)(*inputs))
        zeros = jnp.zeros(1, jnp.int32)
        inputs = jnp.zeros((1, *options.size, 3)), zeros, zeros
        runs["evaluation"] = lambda: jax.block_until_ready(evaluate(values, *inputs))
    height, width = options.size
    name = f"SinDDM {kind}, {height}x{width}"
    return Subject(
        name=name if models == 1 else f"{name}, {models} models together",
        parameters=models * _size(trainer.network),
        images=models,
        runs=runs,
    )


def of_latents(options: Options, kind: str) -> Subject:
    """Measure a step and an evaluation of a U-Net for CIFAR-10's latents."""
    config: LDMConfig = CONFIGS[f"ldm_cifar10_{kind}"].get_config()
    config = _resized(config, options.width)
    batch = options.batch_size
    config = replace(config, train=replace(config.train, batch_size=batch))
    trainer = LDMTrainer(config, _mesh(), certain=True)
    shapes = trainer.batch_shapes()
    data = {name: jnp.ones(x.shape, x.dtype) for name, x in shapes.items()}
    values = trainer.inference_values(trainer.init())
    evaluate = jax.jit(lambda v, *inputs: trainer.network.bind(v)(*inputs))
    x, labels = jnp.zeros(shapes["mean"].shape), data["label"]
    return Subject(
        name=f"LDM {kind}, width {config.model.width}, batch {batch}",
        parameters=_size(trainer.network),
        images=batch,
        runs={
            "step": _steps(trainer, data),
            "evaluation": lambda: jax.block_until_ready(
                evaluate(values, x, labels, labels)
            ),
        },
    )


def subjects(options: Options) -> Iterator[Subject]:
    """Make all that is measured."""
    for kind in options.kinds:
        if "sinddm" in options.systems:
            yield of_single_images(options, kind, 1)
            if options.together > 1 and kind == "deepprism":
                yield of_single_images(options, kind, options.together)
        if "ldm" in options.systems:
            yield of_latents(options, kind)


def row(subject: Subject) -> tuple[str, ...]:
    """A line of the table."""
    step = subject.milliseconds["step"]
    evaluation = subject.milliseconds.get("evaluation")
    return (
        subject.name,
        f"{subject.parameters:,}",
        f"{step:.1f}",
        f"{step / subject.images:.2f}",
        "" if evaluation is None else f"{evaluation / subject.images:.2f}",
    )


def main(options: Options) -> None:
    """Measure, print, and write what is asked for."""
    options.check()
    keep_memory()
    measured = sorted(subjects(options), key=lambda one: one.name)
    measure(measured, options)
    title = f"denoisers, float32, {options.clock_used} time"
    headings = (
        "network",
        "parameters",
        "step (ms)",
        "an image",
        "evaluation, an image",
    )
    table(title, headings, map(row, measured))
    rows = [
        {
            "name": one.name,
            "parameters": one.parameters,
            "images": one.images,
            "milliseconds": one.milliseconds,
        }
        for one in measured
    ]
    options.write_json("denoisers", clock=options.clock_used, rows=rows)


def _mesh() -> Any:
    return make_mesh(jax.devices()[:1])


def _size(network: Functional) -> int:
    return sum(x.size for x in network.parameter_shapes.values())


def _resized(config: Any, width: int) -> Any:
    if not width:
        return config
    return replace(config, model=replace(config.model, width=width))


def _steps(trainer: Any, batch: Any) -> Run:
    return held(lambda state: trainer.step(state, batch)[0], trainer.init())


if __name__ == "__main__":
    start_with_tcmalloc()
    main(tyro.cli(Options, description=__doc__))

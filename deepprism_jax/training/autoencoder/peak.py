"""How long a step would take if the devices did nothing but its arithmetic.

Over the measured time it is what is known as model FLOPs utilization. Counted are the
multiplications and additions that the networks need by their definition, however they
are carried out: a dense kernel that stands for a channel convolution counts as the
channel convolution, and activations that are computed again count once. DeepPrism has
so few of them that memory is its limit and not arithmetic: its share of the peak is
small even where it is fast.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from deepprism_jax.analysis import layer_costs
from deepprism_jax.analysis.chips import peak_operations
from deepprism_jax.training.autoencoder.networks import make_discriminator
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer


class StepOperations(NamedTuple):
    """Multiplications and additions for one image in one training step."""

    autoencoder: float
    perceptual: float
    discriminator: float
    discriminator_from: int
    """First step that the discriminator is part of."""

    def at(self, step: int) -> float:
        """Their sum at a step, counted from 1."""
        judged = self.discriminator if step > self.discriminator_from else 0.0
        return self.autoencoder + self.perceptual + judged


def step_operations(trainer: AutoencoderTrainer) -> StepOperations:
    """Count the operations of a training step for one image; nothing is computed.

    A backward pass counts as two forward passes, one for its input and one for its
    parameters. The autoencoder runs forward and backward; the perceptual network
    forward on both images and backward to one, without parameters; the discriminator
    forward and backward on both for itself, and on one, without parameters, for the
    autoencoder. Optimizer and penalties on gradients are left out.
    """
    data = trainer.config.data
    shape = (1, *data.image_size, data.channels)
    perceptual = discriminator = 0.0
    if (distance := trainer.perceptual) is not None:
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        lowered = jax.jit(distance.network.apply).lower(distance.params, image)
        perceptual = 3 * (lowered.cost_analysis() or {}).get("flops", 0.0)
    if trainer.discriminator is not None:
        critic = nnx.eval_shape(lambda: make_discriminator(trainer.config, nnx.Rngs(0)))
        discriminator = 8.0 * _forward(critic, shape, "__call__")
    return StepOperations(
        autoencoder=3.0 * _forward(trainer.model, shape, "reconstruct"),
        perceptual=perceptual,
        discriminator=discriminator,
        discriminator_from=trainer.objective.plan.first_step,
    )


def ideal_seconds(trainer: AutoencoderTrainer) -> Callable[[int], float] | None:
    """Return what a step, counted from 1, takes at the peak of the trainer's devices.

    None where the peak of one is not known, as that of CPUs.
    """
    peaks = [peak_operations(d.device_kind) for d in trainer.mesh.devices.flat]
    known = [peak for peak in peaks if peak is not None]
    if len(known) < len(peaks):
        return None
    operations, batch = step_operations(trainer), trainer.config.train.batch_size
    return lambda step: operations.at(step) * batch / sum(known)


def _forward(model: nnx.Module, shape: tuple[int, ...], method: str) -> int:
    costs = layer_costs(model, shape, method=method)
    return sum(cost.operations for cost in costs)

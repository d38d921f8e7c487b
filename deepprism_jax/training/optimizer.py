"""The optimizer and the learning rate that a configuration means."""

from collections import Counter
from typing import Any

import jax
import optax

from deepprism_jax.training.config import OptimizerConfig
from deepprism_jax.training.cuts import LARGE
from deepprism_jax.training.soap import scale_by_soap
from deepprism_jax.training.state import as_one_vector


def peak_learning_rate(config: OptimizerConfig, batch_size: int) -> float:
    """The base rate, times the whole batch where the configuration says so."""
    scale = batch_size if config.scale_by_batch else 1
    return config.learning_rate * scale


def make_schedule(
    config: OptimizerConfig, *, batch_size: int, steps: int, ratio: float = 1.0
) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then as the schedule says."""
    peak = ratio * peak_learning_rate(config, batch_size)
    warmup = config.warmup_steps
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "milestones":
        places = Counter(round(x * steps) - warmup for x in config.milestones)
        after = optax.piecewise_constant_schedule(
            peak, {place: 0.5**times for place, times in places.items()}
        )
    else:
        after = optax.cosine_decay_schedule(
            peak, max(steps - warmup, 1), alpha=config.final_ratio
        )
    if warmup == 0:
        return after
    # The first step moves already: it takes 1 / warmup of the peak, not zero.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    params: Any,
) -> optax.GradientTransformation:
    """Clipping, then the optimizer, for a tree of parameters (arrays or shapes)."""
    b1, b2, decay = config.b1, config.b2, config.weight_decay
    match config.name:
        case "adam":
            update = optax.adam(schedule, b1, b2)
        case "adamw":
            update = optax.adamw(schedule, b1, b2, weight_decay=decay)
        case "lion":
            update = optax.lion(schedule, b1, b2, weight_decay=decay)
        case "sgd":
            update = optax.sgd(schedule, momentum=b1)
        case "soap":
            update = optax.chain(
                _soap(b1, b2, params),
                optax.add_decayed_weights(decay),
                optax.scale_by_learning_rate(schedule),
            )
    if config.clip_norm > 0:
        update = optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    # SOAP needs the shapes, and brings together what is alike by itself.
    if as_one_vector(params) and config.name != "soap":
        update = optax.flatten(update)
    return update


def _soap(b1: float, b2: float, params: Any) -> optax.GradientTransformation:
    """SOAP, but Adam for tensors so large that devices may each store a part of one."""
    soap = scale_by_soap(b1, b2)

    def labels(tree: Any) -> Any:
        return jax.tree.map(lambda x: "adam" if x.size >= LARGE else "soap", tree)

    if "adam" not in jax.tree.leaves(labels(params)):
        return soap
    return optax.partition({"soap": soap, "adam": optax.scale_by_adam(b1, b2)}, labels)

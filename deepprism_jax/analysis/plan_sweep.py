"""Which batch fits a slice, and what makes one fit: a few plans beside each other."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from deepprism_jax.analysis.plan import Plan, make_plan
from deepprism_jax.analysis.plan_topology import Slice
from deepprism_jax.training.preflight import PreflightError, plural
from deepprism_jax.training.systems import Experiment, check

MOST_DOUBLINGS = 4
"""How often a sweep doubles the batch."""
MOST_REMEDIES = 6
"""How many ways to need less memory a sweep tries."""
LARGE_STATE = 0.1
"""Share of the memory from which on it is worth cutting parameters and optimizer."""
_COPIES = 5  # parameters, their moving average, two moments of Adam, gradients


def sweep(config: Experiment, slice_: Slice) -> Iterator[Plan]:
    """Plans of the config and of variants, as each is compiled.

    A batch that fits is doubled while it does; the first that does not is tried once
    more with activations computed again. Where the config itself does not fit, what
    takes less memory is added one after the other (`remedies`) until it does.

    Raises:
        PreflightError: see `make_plan`.
    """
    plan = make_plan(config, slice_)
    yield plan
    if not plan.fits:
        for variant in remedies(config, plan):
            plan = make_plan(variant, slice_)
            yield plan
            if plan.fits:
                return
        return
    for _ in range(MOST_DOUBLINGS):
        config = changed(config, train={"batch_size": 2 * config.train.batch_size})
        if not _possible(config, plan.devices):
            return
        plan = make_plan(config, slice_)
        yield plan
        if not plan.fits:
            if config.train.remat == "none":
                yield make_plan(changed(config, train={"remat": "blocks"}), slice_)
            return


def remedies(config: Experiment, plan: Plan) -> Iterator[Experiment]:
    """Variants of a config that need less memory, the cheapest change first.

    Each keeps the changes before it: parameters and optimizer cut over all devices,
    where they are dense and large; activations computed again; smaller micro-batches;
    at last channels cut, where one image is too much for a device. `MOST_REMEDIES` at
    most, the first ones and the last.
    """
    found = [c for c in _remedies(config, plan) if _possible(c, plan.devices)]
    # The last one takes the least memory: it says whether anything does.
    yield from [*found[: MOST_REMEDIES - 1], *found[MOST_REMEDIES - 1 :][-1:]]


def _remedies(config: Experiment, plan: Plan) -> Iterator[Experiment]:
    devices, batch = plan.devices, config.train.batch_size
    large = _COPIES * plan.parameter_bytes > LARGE_STATE * plan.available
    if large and config.mesh.fsdp == 1:
        fsdp = devices // config.mesh.channel
        config = changed(config, mesh={"data": 0, "fsdp": fsdp})
        yield config
    if config.train.remat == "none":
        config = changed(config, train={"remat": "blocks"})
        yield config
    # Half as many images at once; then one.
    for pieces in sorted({2 * plan.accumulation, plan.device_batch}):
        if plan.accumulation < pieces <= plan.device_batch:
            config = changed(config, train={"accumulation": pieces})
            yield config
    channel = 2 * config.mesh.channel
    while channel <= devices:
        parts = devices // channel
        mesh: dict[str, Any] = {"data": 0, "channel": channel}
        mesh["fsdp"] = parts if config.mesh.fsdp > 1 else 1
        pieces = {"accumulation": max(batch // parts, 1)}
        yield changed(config, mesh=mesh, train=pieces)
        channel *= 2


def changed(config: Experiment, **groups: dict[str, Any]) -> Experiment:
    """Return a config with some fields of its groups replaced.

    >>> changed(config, train={"batch_size": 64}, mesh={"fsdp": 4})
    """
    parts = {name: replace(getattr(config, name), **f) for name, f in groups.items()}
    return replace(config, **parts)


def _possible(config: Experiment, devices: int) -> bool:
    try:
        check(config, devices=devices)
    except PreflightError:
        return False
    return True


def options(plan: Plan, first: Plan) -> str:
    """Say as options in what a plan differs from another; the batch always."""
    names = {
        "--train.accumulation": lambda p: p.accumulation,
        "--train.remat": lambda p: p.remat,
        "--mesh.fsdp": lambda p: p.mesh["fsdp"],
        "--mesh.channel": lambda p: p.mesh["channel"],
    }
    found = [f"--train.batch-size {plan.batch_size}"]
    for name, of in names.items():
        if of(plan) != of(first):
            found.append(f"{name} {of(plan)}")
    return " ".join(found)


def advice(plans: list[Plan]) -> str:
    """Say what to take, of the plans that were made, the config's own first."""
    first = plans[0]
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        tried = "; ".join(options(plan, first) for plan in plans)
        return (
            f"advice: nothing that was tried fits ({tried}): take a narrower model, "
            "smaller images, or a larger chip or slice"
        )
    alike = [plan for plan in fitting if plan.remat == first.remat] or fitting
    best = max(alike, key=lambda plan: plan.batch_size)
    words = (
        f"advice: {options(best, first)} fits, {best.micro_batch} "
        f"{plural(best.micro_batch, 'image')} at once"
    )
    if not first.fits:
        return f"{words}; as the config is, it does not"
    above = [plan for plan in plans if plan.batch_size > best.batch_size]
    if not above:
        used = best.needed / best.available
        return (
            f"{words}, and takes {used:.1%} of its memory; larger ones were not tried"
        )
    words = f"{words}; {above[0].batch_size} does not"
    if above[-1].fits:
        words = f"{words}, but does with {options(above[-1], first)}"
    return words

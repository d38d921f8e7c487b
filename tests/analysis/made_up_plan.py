"""A plan as a compiler could have made it."""

import dataclasses

from deepprism_jax.analysis.plan import Plan
from deepprism_jax.analysis.plan_program import Collective, Memory


def a_plan(batch=64, *, needed=2**30, fits=True):
    """A plan of 16 devices; where it does not fit there is no program to read."""
    plan = Plan(
        topology="v5e:4x4",
        devices=16,
        hosts=4,
        mesh={"data": 16, "fsdp": 1, "channel": 1},
        parts=16,
        remat="none",
        batch_size=batch,
        accumulation=2,
        parameter_bytes=4_000,
        available=2**34,
        needed=needed,
        memory=Memory(2**28, 2**28, 2**28, 2**28),
        collectives=(Collective("all-reduce", 1, 4_100),),
        operations=2.5e9,
        kernels=3,
        estimate=0.02,
        seconds=12.3,
    )
    nothing = {
        "memory": None,
        "collectives": (),
        "operations": None,
        "kernels": 0,
        "estimate": None,
    }
    return plan if fits else dataclasses.replace(plan, **nothing)


TOO_LARGE = a_plan(128, needed=2**34 + 2**33, fits=False)

"""What both kinds of evaluation, of models and of generated images, begin with."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

import jax
from jax.sharding import Mesh

from deepprism_jax.evaluation.feature_sets import Settings, make_extract
from deepprism_jax.evaluation.networks import Suite
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.pairs import make_measure
from deepprism_jax.evaluation.real_side import Images, RealSide
from deepprism_jax.evaluation.scoring import Pass
from deepprism_jax.training.cli import report
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import place_batch

MOST_CPU_DEVICES = 8
"""Each holds the networks of the metrics, of 0.1 GB and more."""


def use_cores() -> None:
    """Make a device of every core, up to `MOST_CPU_DEVICES`, unless that was set.

    On two cores Inception-v3 sees 1.3 times as many images a second by two devices as
    by one with two threads. Without effect once a device was used, and on accelerators.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or getattr(jax.config, "jax_num_cpu_devices", 0) > 0:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(cores, MOST_CPU_DEVICES))


class FailedError(Exception):
    """An evaluation that had begun and came to nothing; one line."""


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """Turn what the library says about images and features into a failure."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise FailedError(str(error).splitlines()[0]) from error


def exit_code(work: Callable[[], None], *, interrupted: str) -> int:
    """Do the work of a program and return its exit code.

    0 says that it is done, 2 that it was refused before any work, 1 that it failed
    later, 130 that Ctrl-C has ended it; each with its line, that last one as given.
    """
    try:
        work()
    except PreflightError as error:
        return report(error)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return 130
    return 0


def make_real_side(
    suite: Suite, options: Options, data: DataConfig, count: int
) -> RealSide:
    """Return what distributions are compared with, and check the files for it.

    Args:
        suite: metrics that need more images than there are leave it.
        options: of the command line.
        data: the images evaluated on.
        count: how many they are.

    Raises:
        ValueError, OSError: see `RealSide`.
    """
    name = " ".join(filter(None, (data.source, data.name, data.path)))
    return RealSide(
        suite,
        Images(name, data.eval_split, data.image_size, count),
        Settings(options.kid_subset, options.splits),
        asked=options.metrics,
        reference=options.reference,
        save=options.save_reference,
        cache=options.cache,
    )


def unread(count: int, images: int) -> str:
    """Say how many images could not be read."""
    return (
        f"{count:,} of {images:,} images could not be read and count in no figure; the "
        "log names them"
    )


def make_pass(suite: Suite, mesh: Mesh, real: RealSide) -> Pass:
    """Put the networks of the metrics on a mesh."""
    extract = {d.key: make_extract(d, mesh) for d in suite.distributions}
    measure = make_measure(suite.pairs, suite.distances, mesh)
    return Pass(measure, extract, partial(place_batch, mesh), real.needed, real.caches)

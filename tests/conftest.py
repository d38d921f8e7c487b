"""What all tests share: four CPU devices, so that meshes are tested on any machine."""

import os

import jax
import jaxtyping
import pytest

# Only before the first use of a device; a single-device test does not notice.
jax.config.update("jax_num_cpu_devices", 4)

# Kernels that this machine may have built are used only by the tests of them.
os.environ["DEEPPRISM_NATIVE"] = "0"

# Nor are the pretrained networks that it may have.
os.environ["DEEPPRISM_WEIGHTS"] = os.path.join(os.path.dirname(__file__), "no-weights")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that is `gs://bucket`, to the package and to what it writes with."""
    from bucket import install  # only a few tests need what it imports

    install(monkeypatch, tmp_path / "gs")
    return tmp_path / "gs" / "bucket"


@pytest.fixture
def without_type_checks():
    """What annotations would refuse reaches the function, as outside of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Compile without most optimizations: it takes half the time.

    Not where the compiled program itself is the subject, and not in slow tests, whose
    programs run long enough to pay for them. A hook, for it comes before the fixtures
    of a whole module.
    """
    parts = item.path.relative_to(item.config.rootpath).parts
    thorough = "ops" in parts or "benchmarks" in parts
    quick = not thorough and item.get_closest_marker("slow") is None
    jax.config.update("jax_disable_most_optimizations", quick)

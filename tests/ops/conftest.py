"""The C++ kernels, for tests that ask for them."""

import os

import pytest

from deepprism_jax.ops.native import library


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A cache directory into which the kernels are built once."""
    try:
        library.find_compiler()
    except library.BuildError as error:
        pytest.skip(str(error))
    cache = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        cache = cache.parent  # of all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        if not library.path().exists():
            library.build()
    return cache


@pytest.fixture
def native(built, monkeypatch):
    """The kernels, loaded for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))
    monkeypatch.delenv("DEEPPRISM_NATIVE")
    forget = library.register.cache_clear
    forget()
    assert library.loaded()
    yield
    forget()

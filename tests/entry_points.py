"""What tests of the entry points share: their `main`, and models with random values."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx


def load_program(path):
    """Return the module in a file of the repository, by its path from the root."""
    path = Path(__file__).parents[1] / path
    spec = importlib.util.spec_from_file_location(f"{path.stem}_program", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = program  # help is read from the module's source
    spec.loader.exec_module(program)
    return program


def load_main(name):
    """Return `main` of the program NAME.py."""
    return load_program(f"{name}.py").main


def random_model(make, seed):
    """Return the module that `make` makes, without the wait for its initialisation."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(seed)

    def fill(x):
        return jax.numpy.asarray(rng.normal(0, 0.2, x.shape), x.dtype)

    return nnx.merge(graphdef, jax.tree.map(fill, state))


def refused_in_one_line(main, argv, capsys):
    """Check that a program refuses its arguments with one line, and return that."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err

import json
import shutil

import numpy as np
import pytest

SMALL = {"size": (1, 4, 5, 32), "torch": False, "seconds": 0.0, "bursts": 1}


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("dtype", "methods"),
    [
        ("float32", ("shift_and_add", "banded", "native")),
        pytest.param("bfloat16", ("shift_and_add",), marks=pytest.mark.slow),
    ],
)
def test_the_formulations_agree_with_the_c_kernel(
    benchmark_module, tmp_path, capsys, dtype, methods
):
    operators = benchmark_module("operators")
    path = tmp_path / "figures.json"
    operators.main(
        operators.Options(**SMALL, dtype=dtype, methods=methods, json=str(path))
    )
    assert "/ C kernel" in capsys.readouterr().out
    found = json.loads(path.read_text())["milliseconds"]
    # The C++ kernels are off in tests, as where they are not built.
    names = {f"prism, {method}" for method in methods if method != "native"}
    names |= {"C kernel", "JAX dense", "JAX 32 groups", "JAX depthwise"}
    assert set(found["with gradients"]) == names
    assert set(found["forward"]) == names | {"copy"}


def test_a_wrong_gradient_stops_the_measurement(benchmark_module):
    operators = benchmark_module("operators")
    right = [np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)), np.ones((3, 3, 3))]
    operators.check("right", right, right, "float32")
    for wrong in (1.01, np.nan):
        found = [*right[:2], wrong * right[2]]
        with pytest.raises(SystemExit, match="wrong differs by"):
            operators.check("wrong", found, right, "float32")


@pytest.mark.slow
def test_blocks_are_compared_with_deepprism_in_jax(benchmark_module, tmp_path):
    operators = benchmark_module("operators")
    path = tmp_path / "figures.json"
    operators.main(operators.Options(**SMALL, subject="block", json=str(path)))
    found = json.loads(path.read_text())["milliseconds"]
    assert list(found["forward"]) == ["JAX deepprism", "JAX dense"]


def test_torch_computes_the_same(benchmark_module):
    pytest.importorskip("torch")
    operators = benchmark_module("operators")
    size = (2, 4, 5, 32)
    _, pairs = operators.subjects(operators.Options(size=size, torch_compile=False))
    checked = [name for name in pairs if name.startswith("torch Conv3d")]
    assert len(checked) == 2  # `subjects` has stopped if they differ
    assert pairs["torch dense"][0]()[0].shape == (2, 32, 4, 5)

import re
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from deepprism_jax.models.feature_networks import NETWORKS
from deepprism_jax.weights.torchvision import (
    load_feature_network,
    load_lpips_heads,
    load_perceptual_distance,
)


def torch_state(net):
    """A state dict in torchvision's layout, with a classifier as the true ones have."""
    rng = np.random.default_rng(0)
    state = {"classifier.1.weight": np.zeros((10, 512, 1, 1), np.float32)}
    for path, leaf in jax.tree.flatten_with_path(NETWORKS[net].shapes())[0]:
        *names, last = (key.key for key in path)
        module = ".".join(["features", *names])
        if last == "kernel":
            h, w, i, o = leaf.shape
            weight = rng.standard_normal((o, i, h, w), dtype=np.float32)
            state[f"{module}.weight"] = weight
        else:
            state[f"{module}.bias"] = rng.standard_normal(leaf.shape, dtype=np.float32)
    return state


STATE = torch_state("squeeze")


def save_npz(path, state):
    np.savez(path, **state)
    return path


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_places_torch_tensors(tmp_path):
    params = load_feature_network("squeeze", save_npz(tmp_path / "net.npz", STATE))
    conv = STATE["features.0.weight"]
    np.testing.assert_array_equal(params["0"]["kernel"], np.einsum("oihw->hwio", conv))
    fire = params["12"]["expand3x3"]
    expected = STATE["features.12.expand3x3.weight"]
    assert fire["kernel"][2, 1, 5, 7] == expected[7, 5, 2, 1]
    np.testing.assert_array_equal(fire["bias"], STATE["features.12.expand3x3.bias"])
    shapes = NETWORKS["squeeze"].shapes()
    assert jax.tree.map(
        lambda a, s: a.shape == s.shape, params, shapes
    ) == jax.tree.map(lambda s: True, shapes)


def test_safetensors_and_npz_give_the_same(tmp_path):
    save_file(STATE, tmp_path / "net.safetensors")
    first = load_feature_network("squeeze", tmp_path / "net.safetensors")
    second = load_feature_network("squeeze", save_npz(tmp_path / "net.npz", STATE))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_half_precision_is_widened(tmp_path):
    half = {name: tensor.astype(np.float16) for name, tensor in STATE.items()}
    params = load_feature_network("squeeze", save_npz(tmp_path / "net.npz", half))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    expected = half["features.0.weight"].astype(np.float32)
    np.testing.assert_array_equal(
        params["0"]["kernel"], np.einsum("oihw->hwio", expected)
    )


def test_missing_file_says_what_to_bring(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_feature_network("vgg", tmp_path / "vgg.npz")
    text = one_line(error)
    assert "vgg.npz" in text
    assert "run python -m deepprism_jax.weights get vgg16" in text
    assert "torchvision's state dict of vgg16 (IMAGENET1K_V1)" in text


def test_missing_tensor_is_named(tmp_path):
    state = {k: v for k, v in STATE.items() if k != "features.7.squeeze.bias"}
    path = save_npz(tmp_path / "net.npz", state)
    with pytest.raises(
        ValueError, match=r"missing features\.7\.squeeze\.bias;"
    ) as error:
        load_feature_network("squeeze", path)
    assert "squeezenet1_1" in one_line(error)


def test_wrong_shape_is_named(tmp_path):
    state = STATE | {"features.0.weight": np.zeros((96, 3, 7, 7), np.float32)}
    path = save_npz(tmp_path / "net.npz", state)
    message = re.escape("features.0.weight has shape (96, 3, 7, 7), not (64, 3, 3, 3)")
    with pytest.raises(ValueError, match=message) as error:
        load_feature_network("squeeze", path)
    one_line(error)


def test_another_network_is_recognised(tmp_path):
    path = save_npz(tmp_path / "net.npz", STATE)
    message = "holds squeezenet1_1, not alexnet; choose net 'squeeze' or run"
    with pytest.raises(ValueError, match=message) as error:
        load_feature_network("alex", path)
    one_line(error)


def test_a_file_of_something_else_counts_what_is_missing(tmp_path):
    path = save_npz(tmp_path / "net.npz", {"conv1.weight": np.zeros(3, np.float32)})
    message = r"missing features\.0\.weight \(and 49 more\)"
    with pytest.raises(ValueError, match=message):
        load_feature_network("squeeze", path)


def test_values_that_overflowed_are_named(tmp_path):
    bias = np.full(64, np.inf, np.float16)
    path = save_npz(tmp_path / "net.npz", STATE | {"features.0.bias": bias})
    with pytest.raises(
        ValueError, match=r"features\.0\.bias has values that are not fin"
    ):
        load_feature_network("squeeze", path)


@pytest.mark.parametrize("name", ["net.npz", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a real archive" * 9])
def test_broken_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read weights file .*{name}") as error:
        load_feature_network("squeeze", path)
    assert "bring torchvision's" in one_line(error)


def test_truncated_file_is_named(tmp_path):
    path = save_npz(tmp_path / "net.npz", STATE)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="cannot read weights file"):
        load_feature_network("squeeze", path)


def test_damaged_file_is_named(tmp_path):
    path = save_npz(tmp_path / "net.npz", STATE)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("features.0.weight.npy").header_offset
    content = bytearray(path.read_bytes())
    content[start + 500] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read weights file"):
        load_feature_network("squeeze", path)


def test_a_file_of_torch_is_read(tmp_path):
    """The formats themselves: test_state_dict.py."""
    golden = Path(__file__).parent / "golden" / "tensors_stream.pth"
    with pytest.raises(ValueError, match=r"missing features\.0\.weight") as error:
        load_feature_network("squeeze", golden)
    assert "get squeezenet1_1" in one_line(error)


def head_arrays(net="squeeze"):
    rng = np.random.default_rng(1)
    return [rng.random(c, dtype=np.float32) for c in NETWORKS[net].channels]


@pytest.mark.parametrize("layout", ["by network", "lpips package"])
def test_heads_in_both_layouts(tmp_path, layout):
    heads = head_arrays()
    if layout == "by network":
        state = {f"squeeze.lin{i}": head for i, head in enumerate(heads)}
        state |= {f"vgg.lin{i}": head for i, head in enumerate(head_arrays("vgg"))}
    else:
        state = {
            f"lin{i}.model.1.weight": head.reshape(1, -1, 1, 1)
            for i, head in enumerate(heads)
        }
    loaded = load_lpips_heads("squeeze", save_npz(tmp_path / "heads.npz", state))
    assert len(loaded) == 7
    for head, expected in zip(loaded, heads, strict=True):
        np.testing.assert_array_equal(head, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"squeeze.lin6": None}, r"missing squeeze\.lin6"),
        ({"squeeze.lin1": np.zeros(64)}, r"lin1 has shape \(64,\).* has 128 channels"),
        ({"squeeze.lin0": -np.ones(64)}, r"squeeze\.lin0 has negative weights"),
        ({"squeeze.lin0": np.full(64, np.nan)}, r"squeeze\.lin0 has .* not finite"),
    ],
)
def test_wrong_heads_are_named(tmp_path, change, message):
    state = {f"squeeze.lin{i}": head for i, head in enumerate(head_arrays())} | change
    state = {name: head for name, head in state.items() if head is not None}
    with pytest.raises(ValueError, match=message) as error:
        load_lpips_heads("squeeze", save_npz(tmp_path / "heads.npz", state))
    one_line(error)


def test_missing_heads_file_says_what_to_bring(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"get lpips_squeeze, or bring the heads of lpips\.LPIPS",
    ) as error:
        load_lpips_heads("squeeze", tmp_path / "heads.npz")
    one_line(error)


def test_perceptual_distance_with_and_without_heads(tmp_path):
    net = save_npz(tmp_path / "net.npz", STATE)
    heads = {f"squeeze.lin{i}": head for i, head in enumerate(head_arrays())}
    path = save_npz(tmp_path / "heads.npz", heads)
    assert load_perceptual_distance("squeeze", net).learnable
    assert load_perceptual_distance("squeeze", net, "").learnable
    assert not load_perceptual_distance("squeeze", net, path).learnable

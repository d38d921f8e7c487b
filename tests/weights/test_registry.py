"""What the registry says is in itself consistent, and in the documentation."""

import re
from pathlib import Path

import pytest

from deepprism_jax.weights.registry import REGISTRY

DOCS = Path(__file__).parents[2] / "docs" / "weights.md"
by_entry = pytest.mark.parametrize("entry", REGISTRY.values(), ids=list(REGISTRY))


def test_the_names_are_those_that_others_ask_for():
    assert list(REGISTRY) == [
        "inception",
        "squeezenet1_1",
        "vgg16",
        "alexnet",
        "lpips_squeeze",
        "lpips_vgg",
        "lpips_alex",
        "efficientnet_lite0",
    ]


@by_entry
def test_a_checksum_agrees_with_what_is_in_the_files_name(entry):
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    # torch's hub puts the first eight digits there.
    if digits := re.search(r"-([0-9a-f]{8})\.pth$", entry.file):
        assert entry.sha256.startswith(digits[1])
    else:
        assert entry.name.startswith("lpips_")


@by_entry
def test_the_tensors_that_are_needed_fit_into_the_file(entry):
    assert 0 < entry.kept_size < entry.size
    # The classifiers of VGG16 and AlexNet are not read.
    whole = entry.name in ("inception", "efficientnet_lite0")
    assert entry.kept_size > (0.95 if whole else 0.04) * entry.size
    if entry.prefixes:
        assert all(name.startswith(entry.prefixes) for name in entry.shapes())


@by_entry
def test_each_has_an_address_or_a_package(entry):
    assert bool(entry.address) != bool(entry.package)
    if entry.address:
        assert re.fullmatch(rf"https://\S+/{re.escape(entry.file)}", entry.address)


@by_entry
def test_each_is_in_the_documentation(entry):
    text = DOCS.read_text()
    row, source = re.findall(rf"^\| `{entry.name}` \|.*", text, re.M)
    for fact in (entry.what, entry.file, entry.licence, f"{entry.size:,}"):
        assert fact in row
    assert (entry.address or entry.package) in source
    assert f"{entry.sha256}  {entry.file}" in text
    assert entry.citation in text

"""What is measured is what images and weights allow; the rest is said in a line."""

from pathlib import Path

import corner
import pytest

from deepprism_jax.evaluation import networks
from deepprism_jax.evaluation.networks import METRICS, make_suite
from deepprism_jax.training.preflight import PreflightError


@pytest.fixture
def has(monkeypatch):
    """Makes the store hold weights of these names."""

    def put(*names):
        monkeypatch.setattr(
            networks.store, "find", lambda name: Path(name) if name in names else None
        )

    monkeypatch.setattr(networks.store, "fingerprint", lambda path: f"of {path}")
    monkeypatch.setattr(networks.store, "facts", lambda path: {"checked": "sha256"})
    monkeypatch.setattr(
        networks, "load_perceptual_distance", lambda net, weights, heads: net
    )
    for name in ("load_inception", "load_efficientnet"):
        monkeypatch.setattr(networks, name, lambda path: corner.PARAMS)
    return put


def test_without_weights_one_line_a_file_says_what_to_get(has):
    has()
    suite = make_suite((), (32, 32), 3)
    assert suite.pairs == ["psnr", "ssim"]
    assert (suite.distances, suite.distributions, suite.facts) == ({}, [], {})
    get = "python -m deepprism_jax.weights get"
    assert suite.skipped == [
        f"lpips_squeeze: the weights of squeezenet1_1 and lpips_squeeze are not here; "
        f"{get} squeezenet1_1 lpips_squeeze",
        f"lpips_vgg: the weights of vgg16 and lpips_vgg are not here; "
        f"{get} vgg16 lpips_vgg",
        f"lpips_alex: the weights of alexnet and lpips_alex are not here; "
        f"{get} alexnet lpips_alex",
        "is, fid, kid, precision, recall: the weights of inception are not here; "
        f"{get} inception",
        "efficientnet_lite0_score, efficientnet_lite0_frechet, "
        "efficientnet_lite0_kernel, efficientnet_lite0_precision, "
        "efficientnet_lite0_recall: the weights of efficientnet_lite0 are not here; "
        f"{get} efficientnet_lite0",
    ]


def test_what_there_are_weights_for_is_measured(has):
    has("squeezenet1_1", "lpips_squeeze", "lpips_vgg", "inception")
    suite = make_suite((), (256, 256), 3)
    assert suite.pairs == ["psnr", "ssim", "ms_ssim"]
    assert list(suite.distances) == ["lpips_squeeze"]
    (inception,) = suite.distributions
    assert inception.metrics == networks.INCEPTION_METRICS
    assert inception.fingerprint == "of inception"
    assert set(suite.facts) == {"squeezenet1_1", "lpips_squeeze", "inception"}
    assert suite.facts["inception"]["weights"] == "of inception"
    assert "299x299" in suite.facts["inception"]["resize"]
    assert suite.skipped[0].startswith("lpips_vgg: the weights of vgg16 are not here")


def test_metrics_are_those_asked_for(has):
    has("inception", "efficientnet_lite0")
    suite = make_suite(("fid", "psnr", "recall"), (32, 32), 3)
    assert suite.pairs == ["psnr"]
    (inception,) = suite.distributions
    assert inception.metrics == {"frechet": "fid", "recall": "recall"}
    assert suite.skipped == []


@pytest.mark.parametrize(
    ("name", "size", "channels", "message"),
    [
        ("fids", (32, 32), 3, "unknown metric 'fids'; choose from psnr, ssim"),
        ("ssim", (8, 32), 3, "ssim needs images of at least 11x11, and these are 8x32"),
        ("ms_ssim", (161, 160), 3, "ms_ssim needs images of at least 161x161"),
        ("lpips_alex", (32, 30), 3, "lpips_alex needs images of at least 31x31"),
        ("fid", (32, 32), 4, "fid needs gray or RGB images, and these have 4 channels"),
    ],
)
def test_what_does_not_fit_is_refused_if_asked_for(has, name, size, channels, message):
    has()
    with pytest.raises(PreflightError, match=message):
        make_suite((name,), size, channels)


def test_generated_images_have_no_reconstructions(has):
    has("inception")
    suite = make_suite((), (32, 32), 3, pairs=False)
    assert (suite.pairs, suite.distances) == ([], {})
    assert [d.key for d in suite.distributions] == ["inception"]
    with pytest.raises(PreflightError, match="psnr compares images with reconstr"):
        make_suite(("psnr",), (32, 32), 3, pairs=False)


def test_every_metric_has_a_column():
    from deepprism_jax.evaluation.table4 import COLUMNS

    assert set(METRICS) <= COLUMNS.keys()


def test_weights_of_another_network_are_said_and_left_out(has, monkeypatch):
    has("inception")

    def refuse(path):
        raise ValueError(f"{path} is not the Inception-v3 of FID")

    monkeypatch.setattr(networks, "load_inception", refuse)
    suite = make_suite((), (32, 32), 3)
    assert suite.distributions == []
    assert "fid: inception is not the Inception-v3 of FID" in suite.skipped
    with pytest.raises(PreflightError, match="is not the Inception-v3"):
        make_suite(("fid",), (32, 32), 3)

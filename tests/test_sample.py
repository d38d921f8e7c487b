"""`sample.py` on a run with two models, and what it refuses."""

import json
import shutil

import jax
import numpy as np
import pytest
from entry_points import load_main, random_model, refused_in_one_line
from flax import nnx
from PIL import Image

from deepprism_jax.layers.functional import values_of
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.sampling import draw
from deepprism_jax.sampling.runs import open_run
from deepprism_jax.sampling.trained_on_one import load_model
from deepprism_jax.training.config import Config
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sinddm.config import DiffusionConfig, SinDDMConfig
from deepprism_jax.training.workdir import claim
from deepprism_jax.weights.items import save_items
from deepprism_jax.weights.pretrained import MODELS, describe, save_pretrained

# Convolutions are dense because those compile fastest.
OPTIONS = {"width": 4, "conv": "dense", "embedding": 4}
CONFIG = SinDDMConfig(diffusion=DiffusionConfig(times=3, coarsest=20, target="x0"))
NAMES = ["lake", "wood"]


main = load_main("sample")


def make_network(seed):
    return random_model(lambda: SinDDM(**OPTIONS, rngs=nnx.Rngs(0)), seed)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run of two models, one without a checkpoint, an autoencoder's, an export."""
    path = tmp_path_factory.mktemp("written")
    networks = [make_network(seed) for seed in range(len(NAMES))]
    rows = jax.tree.map(lambda *x: jax.numpy.stack(x), *map(values_of, networks))
    description = {**describe(networks[0]), MODELS: NAMES}
    rng = np.random.default_rng(0)
    with claim(path / "run", CONFIG, resume=False):
        for folder in ("images", "checkpoints"):
            (path / "run" / folder).mkdir()
        items = {"ema": rows, "config": {"model": description}}
        save_items(path / "run" / "checkpoints" / "10", items)
        for name in NAMES:
            pixels = rng.integers(0, 256, (20, 22, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / "run" / "images" / f"{name}.png")
    for name, config in (("early", CONFIG), ("autoencoder", Config())):
        with claim(path / name, config, resume=False):
            pass
    save_pretrained(networks[0], path / "export")
    return path


def test_a_model_of_a_run_draws_images_by_seed(written, tmp_path, capsys):
    out = tmp_path / "out"
    asked = [str(written / "run"), "--image", "wood", "--output", str(out)]
    assert main([*asked, "--count", "2", "--seed", "5", "--scale-mul", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "wood, step 10: 2 images of 20x44, scale 0, from noise" in printed
    assert f"wrote 2 images to {out}" in printed
    names = sorted(path.name for path in out.iterdir())
    assert names == ["0005.png", "0006.png", "grid.png", "samples.json"]
    first, second = (np.asarray(Image.open(out / name)) for name in names[:2])
    assert first.shape == (20, 44, 3)
    assert (first != second).any()
    record = json.loads((out / "samples.json").read_text())
    assert (record["image"], record["step"], record["mode"]) == ("wood", 10, "random")
    assert (record["seeds"], record["times"]) == ([5, 6], [3])
    assert (record["height"], record["width"]) == (20, 44)
    assert record["options"]["scale_mul"] == [1.0, 2.0]
    assert record["seconds"] > 0

    # And in Python, one after another.
    options = {"image": "wood", "count": 2, "seed": 5, "scale_mul": (1.0, 2.0)}
    images = draw(run=str(written / "run"), **options)
    np.testing.assert_array_equal(np.stack([*images]), [first, second])
    with pytest.raises(PreflightError, match="--count 0 must be at least 1"):
        draw(run=written / "run", image="wood", count=0)

    # What is there is not drawn over.
    before = (out / "0005.png").read_bytes()
    assert main([*asked, "--count", "1", "--seed", "5"]) == 2
    assert "holds images drawn before: choose a new folder" in capsys.readouterr().err
    assert (out / "0005.png").read_bytes() == before


def test_the_model_is_that_of_its_image(written):
    run = open_run(written / "run" / "checkpoints" / "10", ["sinddm"])
    found = load_model(run, "wood")
    expected = values_of(make_network(1))
    for name, x in values_of(found.network).items():
        np.testing.assert_array_equal(x, expected[name])
    there = np.asarray(Image.open(written / "run" / "images" / "wood.png"))
    np.testing.assert_array_equal(found.image, there)
    assert found.process.sizes == ((20, 22),)
    assert (found.step, found.target) == (10, "x0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to draw from; give the work directory of a run"),
        (["{run}"], "the run has 2 models: give --image, of lake, wood"),
        (["{run}", "--image", "wod"], "is none of the models: perhaps you meant wood"),
        (["{run}/nowhere"], "nowhere is no directory; give the work directory"),
        (["{run}/images"], "is no work directory: it has no config.json"),
        (["{run}/checkpoints/7"], "no complete checkpoint; choose one of those there"),
        (["gs://bucket/run"], "copy the run here first"),
        (["{early}"], "has no checkpoint yet; wait for the first one of its run"),
        (["{export}"], "is an exported model, which does not hold its training image"),
        (["{autoencoder}"], "is a run of the kind autoencoder, whose models draw no"),
        (["{run}", "--output", "{run}"], "holds something else: choose a new folder"),
        (["{run}", "--image", "lake", "--from-scale", "3"], "--from-scale 3 does not"),
        (["{run}", "--sed", "1"], "unknown option --sed; perhaps you meant --seed"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message, written, capsys):
    places = {path.name: path for path in written.iterdir()}
    argv = [text.format(**places) for text in arguments]
    assert message in refused_in_one_line(main, argv, capsys)
    assert not (written / "run" / "drawn").exists()


def test_a_run_without_its_images_is_refused(written, tmp_path, capsys):
    shutil.copytree(written / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "images")
    assert main([str(tmp_path / "run")]) == 2
    assert (
        "the run has no images/ with what it was trained on" in capsys.readouterr().err
    )

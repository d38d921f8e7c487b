"""TFDS sets, prepared here in the official layout and read back bit for bit."""

import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deepprism_jax.data import class_names, make_source, prepare
from deepprism_jax.data.sources import tfds as tfds_module
from deepprism_jax.data.sources.tfds import TfdsSource

LAYOUT = {"image_size": (32, 32), "channels": 3}


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
            rng.integers(0, 10, count, np.uint8),
        )
        for split, count in (("train", 50), ("test", 20))
    }


@pytest.fixture(scope="module")
def data_dir(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    assert prepare.write_cifar10(truth, folder) == folder / "cifar10" / "3.0.2"
    return folder


def test_official_layout(data_dir):
    names = {path.name for path in (data_dir / "cifar10" / "3.0.2").iterdir()}
    assert names == {
        "cifar10-train.array_record-00000-of-00001",
        "cifar10-test.array_record-00000-of-00001",
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_tfds_reads_what_was_written(data_dir, truth, split):
    records = tfds.data_source(
        "cifar10", split=split, data_dir=data_dir, download=False
    )
    images, labels = truth[split]
    assert len(records) == len(images)
    ids = sorted(record["id"].decode() for record in records)
    assert ids == [f"{split}_{i:05d}" for i in range(len(images))]
    for record in records:
        i = int(record["id"].decode().rpartition("_")[-1])
        np.testing.assert_array_equal(record["image"], images[i])
        assert record["label"] == labels[i]


@pytest.mark.parametrize("split", ["train", "test", "train[20%:60%]", "train+test"])
def test_source_equals_tfds(data_dir, split):
    source = make_source(
        "tfds", split=split, dataset="cifar10", path=str(data_dir), **LAYOUT
    )
    records = tfds.data_source(
        "cifar10", split=split, data_dir=data_dir, download=False
    )
    assert len(source) == len(records)
    for i in range(len(source)):
        np.testing.assert_array_equal(source[i]["image"], records[i]["image"])
        assert source[i]["label"] == records[i]["label"]
    assert class_names(source)[:3] == ("airplane", "automobile", "bird")


def test_tensorflow_is_not_imported(data_dir):
    program = (
        "import sys; from deepprism_jax.data import make_source;"
        "make_source('tfds', split='train', dataset='cifar10', path=sys.argv[1],"
        " image_size=(32, 32))[0];"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(data_dir)], check=True)


def test_version_folder_needs_no_name(data_dir):
    source = TfdsSource("", "test", data_dir=data_dir / "cifar10" / "3.0.2", **LAYOUT)
    assert source.name == "cifar10/3.0.2"
    assert len(source) == 20


def test_images_are_resized_and_converted(data_dir):
    source = TfdsSource(
        "cifar10", "test", data_dir=data_dir, image_size=(16, 8), channels=1
    )
    assert source[0]["image"].shape == (16, 16, 1)


def one_line(pattern: str):
    return re.compile(rf"{pattern}[^\n]*\Z")


@pytest.mark.parametrize(
    ("dataset", "split", "error", "message"),
    [
        ("cifar10", "val", ValueError, "no images for split 'val'; .* train, test"),
        ("cifar10", "train[:x]", ValueError, r"no images for split 'train\[:x\]'"),
        ("cifar10", "train[:0]", ValueError, r"no images for split 'train\[:0\]'"),
        ("cifar01", "train", ValueError, "no data set 'cifar01'; perhaps cifar10"),
        ("zzzzzzzz", "train", ValueError, "TFDS knows no data set 'zzzzzzzz'"),
        ("cifar10:9.9.9", "train", ValueError, "cannot build 'cifar10:9.9.9': "),
        ("../x", "train", ValueError, "cannot build '../x': "),
        (
            "imagenet2012",
            "train",
            FileNotFoundError,
            "imagenet2012 is not prepared in .*; prepare it: "
            "python -m deepprism_jax.data.prepare imagenet2012 --data-dir .*",
        ),
    ],
)
def test_bad_names(data_dir, dataset, split, error, message):
    with pytest.raises(error, match=one_line(message)):
        TfdsSource(dataset, split, data_dir=data_dir, **LAYOUT)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such TFDS folder: .*nowhere"):
        TfdsSource("cifar10", "train", data_dir=tmp_path / "nowhere", **LAYOUT)


def test_format_without_random_access(truth, data_dir, tmp_path):
    info = (data_dir / "cifar10" / "3.0.2" / "dataset_info.json").read_text()
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    for file in ("features.json", "label.labels.txt"):
        (folder / file).write_bytes((data_dir / "cifar10/3.0.2" / file).read_bytes())
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(FileNotFoundError, match="as tfrecord, which has no random acc"):
        TfdsSource("cifar10", "train", data_dir=tmp_path, **LAYOUT)


@pytest.mark.parametrize(
    "damage", [lambda x: x.unlink(), lambda x: os.truncate(x, 70_000)]
)
def test_damaged_files_are_found_at_once(data_dir, tmp_path, damage):
    shutil.copytree(data_dir / "cifar10", tmp_path / "cifar10")
    name = "cifar10-train.array_record-00000-of-00001"
    damage(tmp_path / "cifar10" / "3.0.2" / name)
    with pytest.raises(
        ValueError, match=one_line("cifar10/3.0.2 is damaged: .*; delete .* again: ")
    ):
        TfdsSource("cifar10", "train", data_dir=tmp_path, **LAYOUT)
    assert len(TfdsSource("cifar10", "test", data_dir=tmp_path, **LAYOUT)) == 20


IMAGE, LABEL = tfds.features.Image(), tfds.features.ClassLabel(num_classes=2)
DEPTH = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)


@pytest.mark.parametrize(
    ("features", "key"),
    [
        ({"label": LABEL, "image": IMAGE, "mask": IMAGE}, "image"),
        ({"label": LABEL, "photo": IMAGE}, "photo"),
    ],
)
def test_image_feature_is_found(features, key):
    info = SimpleNamespace(full_name="set/1.0.0", features=features)
    assert tfds_module._image_key(info) == key


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": LABEL}, "set/1.0.0 has no feature 'image'; its features are label"),
        ({"a": IMAGE, "b": IMAGE}, "no feature 'image'; its features are a, b"),
        ({"image": DEPTH}, "images of set/1.0.0 are float32; only 8 and 16 bits"),
    ],
)
def test_sets_without_usable_images(features, message):
    info = SimpleNamespace(full_name="set/1.0.0", features=features)
    with pytest.raises(ValueError, match=message):
        tfds_module._image_key(info)


def test_preparing_again_leaves_the_set_alone(data_dir, truth):
    file = data_dir / "cifar10" / "3.0.2" / "cifar10-train.array_record-00000-of-00001"
    before = file.stat().st_mtime_ns
    prepare.write_cifar10(truth, data_dir)
    assert file.stat().st_mtime_ns == before


def test_command_prepares_cifar10(monkeypatch, truth, tmp_path, capsys):
    monkeypatch.setattr(prepare, "read_cifar10", lambda path, split: truth[split])
    prepare.main("cifar10", files="anywhere", data_dir=str(tmp_path))
    assert f"cifar10 is prepared in {tmp_path}" in capsys.readouterr().out
    assert len(TfdsSource("cifar10", "train", data_dir=tmp_path, **LAYOUT)) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "error: preparing 'mnist' needs TensorFlow .* install"),
        (
            {"name": "cifar10"},
            "needs TensorFlow .* or give --from cifar-10-batches-bin",
        ),
        ({"name": "cifar10", "files": "nowhere"}, "error: no such folder: nowhere"),
    ],
)
def test_command_says_what_is_missing(monkeypatch, arguments, message):
    monkeypatch.setattr(prepare, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=one_line(message)):
        prepare.main(**arguments)


def test_other_sets_go_through_tfds(monkeypatch, tmp_path):
    calls = {}

    class Builder:
        data_path = tmp_path

        def download_and_prepare(self, download_config):
            calls["manual_dir"] = download_config.manual_dir

    def builder(name, **options):
        calls.update(name=name, **options)
        return Builder()

    monkeypatch.setattr(prepare, "find_spec", lambda name: "found")
    monkeypatch.setattr(tfds, "builder", builder)
    assert prepare.prepare("imagenet2012", files="tars", data_dir="there") == tmp_path
    assert calls == {
        "name": "imagenet2012",
        "data_dir": "there",
        "file_format": "array_record",
        "manual_dir": "tars",
    }

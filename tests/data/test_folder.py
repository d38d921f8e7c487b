"""A folder gives every image in it that can be read, and says what it leaves out."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from deepprism_jax.data import class_names, make_source
from deepprism_jax.data.images import UnreadableImageError
from deepprism_jax.data.sources import folder as folder_module
from deepprism_jax.data.sources.folder import FolderSource

LAYOUT = {"image_size": (4, 4), "channels": 3}


def paint(path, value: int = 0, size: tuple[int, int] = (5, 6)) -> None:
    """Write an image of one gray value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def values(source) -> list[int]:
    return [int(source[i]["image"][0, 0, 0]) for i in range(len(source))]


def test_nested_images_in_order_of_their_names(tmp_path):
    paint(tmp_path / "b.png", 2)
    paint(tmp_path / "a" / "deep" / "x.BMP", 1)
    paint(tmp_path / "c.webp", 3)
    paint(tmp_path / ".hidden.png", 9)
    paint(tmp_path / ".cache" / "y.png", 9)
    (tmp_path / "labels.txt").write_text("not looked at")
    assert values(FolderSource(tmp_path, **LAYOUT)) == [1, 2, 3]


def test_links_are_followed(tmp_path):
    paint(tmp_path / "elsewhere" / "x.png", 7)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "link" / "loop").symlink_to(tmp_path / "set")
    assert values(FolderSource(tmp_path / "set", **LAYOUT)) == [7]


def test_resize_is_passed_on(tmp_path):
    paint(tmp_path / "x.png", size=(10, 20))
    covered = FolderSource(tmp_path, **LAYOUT)
    kept = FolderSource(tmp_path, **LAYOUT, resize="keep")
    assert covered[0]["image"].shape == (8, 4, 3)
    assert kept[0]["image"].shape == (20, 10, 3)


def test_split_is_a_sub_folder(tmp_path):
    paint(tmp_path / "train" / "x.png", 1)
    paint(tmp_path / "val" / "y.png", 2)
    assert values(FolderSource(tmp_path, "train", **LAYOUT)) == [1]
    assert values(FolderSource(tmp_path, "val", **LAYOUT)) == [2]
    assert values(FolderSource(tmp_path, ".", **LAYOUT)) == [1, 2]


def labels(source) -> list[int]:
    return [int(source[i]["label"]) for i in range(len(source))]


def test_classes_are_the_sub_folders(tmp_path):
    for place, value in (("dog/x", 2), ("cat/a/b", 1), ("cat/c", 1), ("Eel/y", 0)):
        paint(tmp_path / "train" / f"{place}.png", value)
    (tmp_path / "train" / "empty").mkdir()
    layout = {"image_size": (4, 4)}
    source = make_source("folder", split="train", path=str(tmp_path), **layout)
    assert class_names(source) == ("Eel", "cat", "dog")
    assert values(source) == labels(source) == [0, 1, 1, 2]
    part = FolderSource(tmp_path, "train[:1]", **LAYOUT)
    assert class_names(part) == ("Eel", "cat", "dog")
    assert values(part) == labels(part)

    paint(tmp_path / "train" / "z.png")
    mixed = FolderSource(tmp_path, "train", **LAYOUT)
    assert class_names(mixed) == ()
    assert mixed[0].keys() == {"image"}


def test_missing_sub_folder_lists_those_there_are(tmp_path):
    paint(tmp_path / "train" / "x.png")
    paint(tmp_path / "val" / "y.png")
    with pytest.raises(
        FileNotFoundError,
        match=r"no sub-folder 'test'; choose .* \(train, val\) or '.'",
    ):
        FolderSource(tmp_path, "test", **LAYOUT)


@pytest.mark.parametrize("cut", ["70%", "7"])
def test_parts_of_a_split_are_disjoint_samples(tmp_path, cut):
    for i in range(10):
        paint(tmp_path / f"{i}.png", i)
    first = values(FolderSource(tmp_path, f".[:{cut}]", **LAYOUT))
    rest = values(FolderSource(tmp_path, f".[{cut}:]", **LAYOUT))
    assert len(first) == 7
    assert sorted(first + rest) == list(range(10))
    assert first != list(range(7))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (".[a:b]", r"cannot read split '.\[a:b\]'; give a sub-folder"),
        (".[5:]", r"split '.\[5:\]' holds none of the 3 images"),
    ],
)
def test_bad_parts(tmp_path, split, message):
    for i in range(3):
        paint(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=message):
        FolderSource(tmp_path, split, **LAYOUT)


def test_unreadable_files_are_named_counted_and_skipped(tmp_path, caplog):
    paint(tmp_path / "good.png", 5)
    (tmp_path / "bad.jpg").write_text("no pixels")
    (tmp_path / "empty.png").touch()
    with caplog.at_level(logging.WARNING):
        source = FolderSource(tmp_path, **LAYOUT)
    assert values(source) == [5]
    assert source.unreadable.keys() == {
        str(tmp_path / "bad.jpg"),
        str(tmp_path / "empty.png"),
    }
    (record,) = caplog.records
    assert "2 of 3 image files" in record.getMessage()
    assert "bad.jpg (not an image), empty.png (not an image)" in record.getMessage()


def test_many_unreadable_files_are_not_all_named(tmp_path, caplog):
    paint(tmp_path / "good.png")
    for i in range(12):
        (tmp_path / f"{i:02}.png").touch()
    with caplog.at_level(logging.WARNING):
        FolderSource(tmp_path, **LAYOUT)
    assert caplog.records[0].getMessage().endswith("09.png (not an image) and 2 more")


def truncated(path, keep: float = 0.5) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    os.truncate(path, int(keep * path.stat().st_size))


def test_file_with_broken_pixels_is_found_when_read(tmp_path):
    paint(tmp_path / "a.png", 1)
    truncated(tmp_path / "b.png")
    source = FolderSource(tmp_path, **LAYOUT)
    assert len(source) == 2
    with pytest.raises(UnreadableImageError, match=r"b\.png: "):
        source[1]


def test_large_folder_is_not_opened_file_by_file(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "CHECKED_AT_START", 2)
    paint(tmp_path / "a.png", 1)
    (tmp_path / "b.png").touch()
    paint(tmp_path / "c.png", 3)
    source = FolderSource(tmp_path, **LAYOUT)
    assert len(source) == 3
    assert not source.unreadable


@pytest.mark.parametrize("break_file", [truncated, lambda path: path.touch()])
def test_folder_without_a_readable_image(tmp_path, break_file):
    for name in ("a.png", "b.png"):
        break_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"none of the 2 image files in .* a\.png: "):
        FolderSource(tmp_path, **LAYOUT)


def test_empty_folder(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no image files in .* jpeg jpg"):
        FolderSource(tmp_path, **LAYOUT)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        FolderSource(tmp_path / "nowhere", **LAYOUT)


def test_file_instead_of_a_folder(tmp_path):
    paint(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError, match=r"not a folder: .*x.png"):
        FolderSource(tmp_path / "x.png", **LAYOUT)


def test_images_are_decoded_once_while_memory_lasts(tmp_path):
    paint(tmp_path / "x.png", 8)
    source = make_source("folder", split=".", path=str(tmp_path), **LAYOUT)
    assert values(source) == [8]
    (tmp_path / "x.png").unlink()
    assert values(source) == [8]

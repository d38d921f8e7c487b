"""A folder of images: nested as one likes, of any size, mode and common format."""

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deepprism_jax.data.images import (
    Resize,
    UnreadableImageError,
    broken_header,
    decode,
)
from deepprism_jax.data.order import image_order

EXTENSIONS = "avif bmp gif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp"
"""Files with other names, and hidden ones, are not looked at."""

# Up to this many files are opened at the start, some 30,000 a second; in a larger
# folder an unreadable file is found, named and skipped when its turn comes.
CHECKED_AT_START = 50_000

_IMAGE_NAME = re.compile(rf"[^.].*\.({EXTENSIONS.replace(' ', '|')})", re.IGNORECASE)
_SPLIT = re.compile(r"([^\[\]]*)(?:\[(\d+%?)?:(\d+%?)?\])?")

_log = logging.getLogger(__name__)


class FolderSource:
    """Images under `path/split`, sorted by name and decoded when asked for.

    `split` is a sub-folder, or "." for `path` itself. Either may be cut as TFDS does,
    `.[:90%]` and `.[90%:]` or `train[1000:]`; the files are cut in one fixed random
    order, so that parts of the same folder are disjoint samples of it. Hidden files
    and folders are passed over; links are followed, each folder being read once.

    The classes are the sub-folders of `path/split` with images in them, however deep,
    sorted by name, whichever part of the files is taken. Where an image lies in none of
    them there are no classes.

    `unreadable` lists the files that are no images, by path, with the reason.

    Raises:
      FileNotFoundError: no such folder or sub-folder, or no image files in it.
      ValueError: a split that cannot be parsed or is empty, or no file is readable.
    """

    def __init__(
        self,
        path: str | Path,
        split: str = ".",
        *,
        image_size: tuple[int, int],
        channels: int,
        resize: Resize = "cover",
    ):
        self.image_size, self.channels = image_size, channels
        self.resize: Resize = resize
        folder, found = files_of_split(Path(path).expanduser(), split)
        files = _part(found, split)
        self._folder, self.class_names = folder, classes_of(found, folder)
        self.unreadable: dict[str, str] = {}
        if len(files) <= CHECKED_AT_START:
            with ThreadPoolExecutor(16) as pool:
                reasons = list(pool.map(broken_header, files))
            self.unreadable = {
                file: reason
                for file, reason in zip(files, reasons, strict=True)
                if reason
            }
        self.files = [file for file in files if file not in self.unreadable]
        if not self._any_readable():
            first, reason = next(iter(self.unreadable.items()))
            raise ValueError(
                f"none of the {len(files):,} image files in {folder} can be read; "
                f"the first: {os.path.relpath(first, folder)}: {reason}"
            )
        if self.unreadable:
            _log.warning("%s", _summary(self.unreadable, folder, len(files)))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decode image number `index`; UnreadableImageError names a broken one."""
        file = self.files[index]
        image = decode(
            file,
            image_size=self.image_size,
            channels=self.channels,
            resize=self.resize,
        )
        if not self.class_names:
            return {"image": image}
        label = self.class_names.index(_sub_folder(file, self._folder))
        return {"image": image, "label": np.asarray(label)}

    def _any_readable(self) -> bool:
        """Drop files with a sound header and broken pixels up to a readable one."""
        for i in range(len(self.files)):
            try:
                self[i]
            except UnreadableImageError as error:
                self.unreadable[self.files[i]] = error.reason
            else:
                self.files = self.files[i:]
                return True
        return False


def classes_of(files: list[str], folder: Path) -> tuple[str, ...]:
    """Return the sub-folders that files lie in; () where one lies in the folder."""
    names = {_sub_folder(file, folder) for file in files}
    return () if "" in names else tuple(sorted(names))


def _sub_folder(file: str, folder: Path) -> str:
    """Return the first folder on the way to a file; "" if it lies in `folder`."""
    # Not os.path.relpath, which takes minutes for the files of a large set.
    below = file.removeprefix(os.path.join(folder, ""))
    inside, _, rest = below.partition(os.sep)
    return inside if rest else ""


def files_of_split(root: Path, split: str) -> tuple[Path, list[str]]:
    """Return the folder of a split and all image files in it, before any is cut off."""
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise FileNotFoundError(f"{what}: {root}; give a folder of images")
    match = _SPLIT.fullmatch(split)
    if not match:
        raise ValueError(
            f"source 'folder' cannot read split {split!r}; give a sub-folder or '.', "
            "and optionally a part of it, as in '.[:90%]' and '.[90%:]'"
        )
    folder = root / match[1]
    if not folder.is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir())
        choice = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
        raise FileNotFoundError(
            f"{root} has no sub-folder {match[1]!r}; choose "
            + (f"one of its sub-folders ({choice}) or " if there else "")
            + "'.' for the folder itself as the split"
        )
    files = image_files(folder)
    if not files:
        raise FileNotFoundError(
            f"no image files in {folder}; their names must end in one of {EXTENSIONS}"
        )
    return folder, files


def _part(files: list[str], split: str) -> list[str]:
    """Return the files of the part that a split names."""
    match = _SPLIT.fullmatch(split)
    start, stop = match.groups()[1:] if match else (None, None)
    if start is None and stop is None:
        return files
    order = image_order(seed=0, images=len(files), start=0, count=len(files))
    part = order[_position(start, len(files), 0) : _position(stop, len(files), None)]
    if not len(part):
        raise ValueError(f"split {split!r} holds none of the {len(files):,} images")
    return [files[i] for i in np.sort(part)]


def _position(text: str | None, total: int, default: int | None) -> int | None:
    """Translate `12` or `90%` into a position among `total` files."""
    if text is None:
        return default
    return round(int(text[:-1]) * total / 100) if text.endswith("%") else int(text)


def image_files(folder: Path) -> list[str]:
    """Return the image files under a folder, sorted; hidden ones are passed over."""
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen:  # A link back up would otherwise be followed for ever.
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(parent, name) for name in names if _IMAGE_NAME.fullmatch(name)
        ]
    return sorted(found)


def _summary(unreadable: dict[str, str], folder: Path, total: int) -> str:
    names = [
        f"{os.path.relpath(file, folder)} ({reason})"
        for file, reason in list(unreadable.items())[:10]
    ]
    rest = len(unreadable) - len(names)
    return (
        f"{len(unreadable):,} of {total:,} image files in {folder} cannot be read and "
        f"are skipped: {', '.join(names)}" + (f" and {rest:,} more" if rest else "")
    )

"""CIFAR-10 from the official binary version.

https://www.cs.toronto.edu/~kriz/cifar.html: a file is 10,000 records of one label
byte and 3,072 pixels, the 32 x 32 planes of red, green and blue.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from deepprism_jax.data.images import to_channels
from deepprism_jax.data.source import ArraySource

FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
"""Files of the two splits, in order."""

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""By label."""

FOLDER = "cifar-10-batches-bin"
ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SIZE = 32
RECORDS, RECORD_BYTES = 10_000, 1 + 3 * SIZE * SIZE


def load_cifar10(
    path: str | Path, split: str, *, image_size: tuple[int, int], channels: int
) -> ArraySource:
    """Return the 50,000 `train` or 10,000 `test` images with their labels, in memory.

    `path` is the folder `cifar-10-batches-bin` or the one that holds it.

    Raises:
      ValueError: unknown split, images smaller than `image_size`, or a file of the
        wrong size or content.
      FileNotFoundError: no such folder, or a file is missing.
    """
    if max(image_size) > SIZE:
        raise ValueError(
            f"image_size {image_size[0]}x{image_size[1]} is larger than CIFAR-10's "
            "32x32; choose at most 32x32, or a source with larger images"
        )
    images, labels = read_cifar10(path, split)
    if channels != 3:
        images = np.stack([to_channels(x, channels) for x in images])
    return ArraySource(images, labels, CLASS_NAMES)


def read_cifar10(
    path: str | Path, split: str
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, " n"]]:
    """Read images and labels of a split; errors as for `load_cifar10`."""
    if split not in FILES:
        raise ValueError(
            f"source 'cifar10' has no split {split!r}; choose train or test"
        )
    folder = find_cifar10(path)
    files = [folder / name for name in FILES[split]]
    for file in files:  # All are checked before the first is read.
        _check_size(file)
    records = np.concatenate(
        [np.fromfile(file, np.uint8).reshape(-1, RECORD_BYTES) for file in files]
    )
    labels = records[:, 0]
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        raise ValueError(
            f"{files[first // RECORDS]} is not CIFAR-10: record {first % RECORDS} has "
            f"label {labels[first]}, above 9; unpack {ARCHIVE} again"
        )
    planes = records[:, 1:].reshape(-1, 3, SIZE, SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.copy()


def find_cifar10(path: str | Path) -> Path:
    """Return the folder of binary files, given it or the folder that holds it."""
    folder = Path(path).expanduser()
    names = [name for split in FILES.values() for name in split]
    for candidate in (folder, folder / FOLDER):
        if any((candidate / name).exists() for name in names):
            return candidate
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such folder: {folder}; unpack {ARCHIVE} and name its {FOLDER}"
        )
    python_version = any(
        (candidate / "data_batch_1").exists()
        for candidate in (folder, folder / "cifar-10-batches-py")
    )
    found = "the Python version of CIFAR-10" if python_version else "no CIFAR-10 files"
    raise FileNotFoundError(
        f"{folder} holds {found}; unpack the binary version, {ARCHIVE}"
    )


def _check_size(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; unpack {ARCHIVE} again")
    size, expected = file.stat().st_size, RECORDS * RECORD_BYTES
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise ValueError(
            f"{file} is {state}: {size:,} bytes instead of {expected:,}; "
            f"unpack {ARCHIVE} again"
        )

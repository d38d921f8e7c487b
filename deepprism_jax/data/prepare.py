"""Prepare a TFDS data set: `python -m deepprism_jax.data.prepare cifar10 --from DIR`.

`cifar10` is written in TFDS's official layout from the official binary files, without
TensorFlow. Any other data set goes through TFDS's own `download_and_prepare`, which
needs TensorFlow: only to prepare, never to read.
"""

import io
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from deepprism_jax.data.sources.cifar10 import CLASS_NAMES, read_cifar10


def prepare(name: str, *, files: str = "", data_dir: str = "") -> Path:
    """Prepare data set `name` as ArrayRecord under `data_dir`; return its folder.

    Args:
      name: TFDS name of the data set.
      files: Where its files are: `cifar-10-batches-bin` for `cifar10`; for sets that
        must be fetched by hand, such as `imagenet2012`, the folder of the archives.
      data_dir: TFDS folder to write to; empty is TFDS's own default.

    Raises:
      ValueError or FileNotFoundError: one line that names the value and the remedy.
    """
    import tensorflow_datasets as tfds

    if name == "cifar10" and files:
        return write_cifar10(
            {split: read_cifar10(files, split) for split in ("train", "test")}, data_dir
        )
    if find_spec("tensorflow") is None:
        raise ValueError(
            f"preparing {name!r} needs TensorFlow (reading it does not): "
            "pip install tensorflow"
            + (", or give --from cifar-10-batches-bin" if name == "cifar10" else "")
        )
    builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=files or None)
    )
    return Path(builder.data_path)


def write_cifar10(
    splits: Mapping[
        str, tuple[UInt8[np.ndarray, "_ 32 32 3"], UInt8[np.ndarray, " _"]]
    ],
    data_dir: str | Path = "",
) -> Path:
    """Write images and labels of each split as TFDS's `cifar10`; return its folder.

    TFDS's own builder does it, given the pixels as PNG: it needs TensorFlow only to
    download and to encode arrays. A set that is there already is left as it is.
    """
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.image_classification import cifar

    def examples(
        split: str, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            png.seek(0)
            yield i, {"id": f"{split}_{i:05d}", "image": png, "label": int(label)}

    with registered.skip_registration():

        class Cifar10(cifar.Cifar10):
            # The name under which the description of the set files its builder.
            __module__ = cifar.__name__

            def _split_generators(self, dl_manager):
                features: Any = self.info.features
                features["label"].names = list(CLASS_NAMES)
                return {split: examples(split, *data) for split, data in splits.items()}

    builder = Cifar10(data_dir=data_dir or None, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)


def main(
    name: tyro.conf.Positional[str],
    files: Annotated[str, tyro.conf.arg(name="from")] = "",
    data_dir: str = "",
) -> None:
    """Prepare a TFDS image data set for reading without TensorFlow.

    Args:
      name: TFDS name of the data set, for example cifar10 or imagenet2012.
      files: Folder with its files: cifar-10-batches-bin, or for sets that must be
        fetched by hand the folder of the archives.
      data_dir: TFDS folder to write to; the default is TFDS's own.
    """
    try:
        folder = prepare(name, files=files, data_dir=data_dir)
    except (ValueError, OSError, AssertionError) as error:
        sys.exit("error: " + str(error).partition("\n")[0])  # TFDS's go on for pages.
    print(f"{name} is prepared in {folder}")


if __name__ == "__main__":
    tyro.cli(main)

"""Any prepared TensorFlow Datasets image set, read without TensorFlow.

TFDS's `data_source` gives random access to its ArrayRecord files. The images stay
encoded until Pillow decodes them as it does files of a folder, so that pixels do not
depend on whether OpenCV is installed.
"""

import difflib
import io
from pathlib import Path
from typing import Any

import numpy as np

from deepprism_jax.data.images import Resize, UnreadableImageError, decode

_PREPARE = "python -m deepprism_jax.data.prepare"


class TfdsSource:
    """Split `split` of data set `dataset` under the TFDS folder `data_dir`.

    `dataset` is TFDS's name, `cifar10` or `oxford_iiit_pet:4.0.0`; it may be empty
    where `data_dir` is itself a prepared version, `.../cifar10/3.0.2`. An empty
    `data_dir` is TFDS's own default. `split` takes all that TFDS takes:
    `train[:90%]`, `train+test`. Labels are those of the feature `label`, or of the only
    one that tells a class.

    Raises:
      ValueError: unknown data set or split, damaged files, or no 8- or 16-bit images.
      FileNotFoundError: not prepared, or not in a format with random access; the
        message says how to prepare it.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        *,
        data_dir: str | Path = "",
        image_size: tuple[int, int],
        channels: int,
        resize: Resize = "cover",
    ):
        import tensorflow_datasets as tfds  # Slow to import, and only needed here.

        self.image_size, self.channels = image_size, channels
        self.resize: Resize = resize
        builder = _prepared_builder(dataset, data_dir)
        self.name = builder.info.full_name
        self.key = _image_key(builder.info)
        self.label_key, self.class_names = _labels(builder.info)
        encoded = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        try:
            self.records = builder.as_data_source(split, decoders=encoded)
        except NotImplementedError as error:
            raise FileNotFoundError(
                f"{self.name} in {builder.data_path} is prepared as "
                f"{builder.info.file_format.value}, which has no random access; "
                f"prepare it elsewhere: {_PREPARE} {builder.name} --data-dir DIR"
            ) from error
        except (ValueError, AssertionError) as error:
            raise ValueError(
                f"{self.name} has no images for split {split!r}; its splits are "
                f"{', '.join(builder.info.splits)}, and TFDS's parts of them such as "
                "'train[:90%]'"
            ) from error
        try:  # Files are opened when first read: at both ends now, not hours later.
            _ = self.records[0], self.records[len(self.records) - 1]
        except RuntimeError as error:
            raise ValueError(
                f"{self.name} is damaged: {_first_line(error)}; delete "
                f"{builder.data_path} and prepare it again: {_PREPARE} {builder.name}"
            ) from error

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decode image number `index`; UnreadableImageError names a broken one."""
        fields = self.records[index]
        try:
            image = decode(
                io.BytesIO(fields[self.key]),
                image_size=self.image_size,
                channels=self.channels,
                resize=self.resize,
            )
        except UnreadableImageError as error:
            record = f"record {index} of {self.name}"
            raise UnreadableImageError(record, error.reason) from error
        item = {"image": image}
        return item | {"label": fields[self.label_key]} if self.label_key else item


def _prepared_builder(dataset: str, data_dir: str | Path) -> Any:
    """Find the data set's builder, and check that its files are there."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    folder = Path(data_dir).expanduser() if data_dir else None
    if not dataset:
        if folder and (folder / "dataset_info.json").is_file():
            return tfds.builder_from_directory(folder)
        raise ValueError(
            "source 'tfds' needs the name of a data set, for example cifar10"
        )
    if folder and not folder.is_dir():
        raise FileNotFoundError(f"no such TFDS folder: {folder}")
    try:
        builder = tfds.builder(dataset, data_dir=folder)
    except DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(dataset, known, 3)
        hint = f"; perhaps {' or '.join(near)}" if near else ""
        raise ValueError(f"TFDS knows no data set {dataset!r}{hint}") from error
    except (ValueError, AssertionError, ImportError) as error:
        raise ValueError(
            f"TFDS cannot build {dataset!r}: {_first_line(error)}"
        ) from error
    if not builder.info.splits:
        where = f" --data-dir {folder}" if folder else ""
        raise FileNotFoundError(
            f"{dataset} is not prepared in {builder.data_path}; "
            f"prepare it: {_PREPARE} {dataset}{where}"
        )
    return builder


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _image_key(info: Any) -> str:
    """Choose the feature `image`, or the only image feature there is."""
    import tensorflow_datasets as tfds

    images = [k for k, v in info.features.items() if isinstance(v, tfds.features.Image)]
    key = "image" if "image" in images else images[0] if len(images) == 1 else None
    if key is None:
        raise ValueError(
            f"{info.full_name} has no feature 'image'; its features are "
            + ", ".join(info.features)
        )
    dtype = np.dtype(info.features[key].np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"images of {info.full_name} are {dtype}; only 8 and 16 bits can be read"
        )
    return key


def _labels(info: Any) -> tuple[str, tuple[str, ...]]:
    """Choose the feature `label`, or the only class there is, and return its names."""
    import tensorflow_datasets as tfds

    kind = tfds.features.ClassLabel
    found = [k for k, v in info.features.items() if isinstance(v, kind)]
    key = "label" if "label" in found else found[0] if len(found) == 1 else ""
    if not key or not info.features[key].num_classes:
        return "", ()
    return key, tuple(info.features[key].names)

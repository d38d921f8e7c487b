"""Where images come from: one file a source, and the name of each."""

import difflib

from deepprism_jax.data.images import check_layout
from deepprism_jax.data.source import CachedSource, Source
from deepprism_jax.data.sources.cifar10 import load_cifar10
from deepprism_jax.data.sources.folder import FolderSource
from deepprism_jax.data.sources.photos import load_photos
from deepprism_jax.data.sources.tfds import TfdsSource

SOURCES = ("photos", "folder", "cifar10", "tfds")


def make_source(
    name: str,
    *,
    split: str,
    path: str = "",
    dataset: str = "",
    image_size: tuple[int, int],
    channels: int = 3,
    resize: str = "cover",
) -> Source:
    """Open a source of images by name, ready to be read at `image_size` or larger.

    Images of `photos` and `cifar10` are in memory; those of `folder` and `tfds` are
    kept there once decoded, up to 512 MiB.

    Args:
      name: `photos`, `folder`, `cifar10` or `tfds`.
      split: `train` or `test`; for `folder` a sub-folder or "." for the folder itself,
        for `tfds` any TFDS split. See the sources for cutting a split in parts.
      path: The folder of images, the CIFAR-10 folder, or the TFDS `data_dir`.
      dataset: TFDS name of the data set.
      image_size: Height and width of the crops that will be taken.
      channels: 1 (grayscale), 3 (RGB) or 4 (RGBA); images are converted.
      resize: How `folder` and `tfds` bring images to size. `cover`: the image becomes
        just large enough for the crop, antialiased, as latent diffusion does for
        ImageNet; `keep`: only images too small for the crop are enlarged.

    Raises:
      ValueError or FileNotFoundError: one line that names the value and the remedy.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, 1)
        hint = f"perhaps {near[0]}" if near else f"choose one of {', '.join(SOURCES)}"
        raise ValueError(f"unknown source {name!r}; {hint}")
    check_layout(image_size, channels)
    if resize not in ("cover", "keep"):
        raise ValueError(f"resize={resize!r}; choose cover or keep")
    if path and name == "photos":
        raise ValueError(
            f"source 'photos' takes no path, and got {path!r}; "
            "for a folder of images choose source 'folder'"
        )
    if dataset and name != "tfds":
        raise ValueError(
            f"source {name!r} takes no data set name, and got {dataset!r}; "
            "for a TFDS data set choose source 'tfds'"
        )
    if not path and name in ("folder", "cifar10"):
        raise ValueError(f"source {name!r} needs a path; set --data.path DIR")
    layout = {"image_size": image_size, "channels": channels}
    match name:
        case "photos":
            return load_photos(split, **layout)
        case "cifar10":
            return load_cifar10(path, split, **layout)
        case "folder":
            return CachedSource(FolderSource(path, split, **layout, resize=resize))
        case _:
            return CachedSource(
                TfdsSource(dataset, split, data_dir=path, **layout, resize=resize)
            )

"""Folders of generated images: what is checked of them before they are measured."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import ExifTags, Image

from deepprism_jax.data.sources.folder import FolderSource
from deepprism_jax.weights.pretrained import CHECKPOINTS, CONFIG, ORBAX, WEIGHTS


def is_folder_of_images(path: Path) -> bool:
    """Tell a folder of images from a work directory and from an exported model."""
    if not path.is_dir() or any(
        (path / name).exists() for name in (CONFIG, WEIGHTS, ORBAX, CHECKPOINTS)
    ):
        return False
    try:
        FolderSource(path, image_size=(1, 1), channels=3)
    except (ValueError, OSError):
        return False
    return True


def open_samples(
    path: Path,
    image_size: tuple[int, int] | None,
    *,
    only: Callable[[Path], bool] = lambda file: True,
) -> FolderSource:
    """Open generated images, all of one size; they are measured as they are.

    Args:
        path: the folder, searched to any depth.
        image_size: height and width that they must have, if that is known.
        only: tells which files are meant.

    Raises:
        ValueError: images differ in size, or from `image_size`; or none is meant.
    """
    found = FolderSource(path, image_size=(1, 1), channels=3)
    files = [file for file in found.files if only(Path(file))]
    if not files:
        raise ValueError(f"{path} has no samples in it; give the folder of some")
    sizes = _sizes(files)
    size = image_size or next((each for each in sizes if each), (1, 1))
    for file, other in zip(files, sizes, strict=True):
        if other and other != size:
            raise ValueError(
                f"{file} is {other[0]}x{other[1]} and not {size[0]}x{size[1]} as "
                + ("asked for" if image_size else "the first of its folder")
                + ": compare images of one size; resizing them would change the figures"
            )
    found = FolderSource(path, image_size=size, channels=3)
    found.files = files
    return found


def _sizes(files: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return the size that every image is shown in; None where it cannot be read."""

    def size(file: str) -> tuple[int, int] | None:
        try:
            with Image.open(file) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                height, width = image.height, image.width
        except OSError:
            return None
        return (width, height) if turned else (height, width)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(size, files))

"""The model of one image, from the work directory of a run that trained one or many."""

import difflib

import numpy as np

from deepprism_jax.data.images import decode_whole
from deepprism_jax.evaluation.pretrained import Pretrained
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.sampling.runs import Run, checkpoint_of
from deepprism_jax.sampling.single_image import Model
from deepprism_jax.training.sinddm.pictures import read_pictures
from deepprism_jax.training.sinddm.process import make_process
from deepprism_jax.training.sinddm.system import IMAGES


def load_model(run: Run, image: str) -> Model:
    """Load the newest readable checkpoint of a model, or the one that is meant.

    Args:
        run: of single-image diffusion.
        image: name of the training image; may be "" where there is only one.

    Raises:
        FileNotFoundError: there is no such image, or no checkpoint that can be read.
        ValueError: there are several images and none is named, or the files are
            damaged.
    """
    if run.pretrained:
        return _of_package(run.pretrained, image)
    files = {path.stem: path for path in sorted((run.workdir / IMAGES).glob("*.png"))}
    name = choose(image, list(files))
    where = checkpoint_of(run)
    network = SinDDM.from_pretrained(where, model=name)
    pixels = decode_whole(files[name], run.config.data.channels)
    pyramid, process = make_process(run.config, pixels)
    target = run.config.diffusion.target
    return Model(name, int(where.name), network, pixels, pyramid, process, target)


def _of_package(found: Pretrained, image: str) -> Model:
    """Load a model of the package; only some come with their training image."""
    assert found.image is not None
    name, size = found.image
    choose(image, [name])
    if found.config.data.path:
        pixels, has_image = np.zeros(size, np.uint8), False
    else:
        (pixels,), has_image = read_pictures(found.config.data).values(), True
    # The process follows from the sizes alone.
    pyramid, process = make_process(found.config, pixels)
    return Model(
        name,
        found.step,
        SinDDM.from_pretrained(found.folder),
        pixels,
        pyramid,
        process,
        found.config.diffusion.target,
        has_image=has_image,
    )


def choose(image: str, names: list[str]) -> str:
    """Return the name of the model that is meant.

    Raises:
        FileNotFoundError: there is none of that name, or none at all.
        ValueError: there are several, and none is named.
    """
    if not names:
        raise FileNotFoundError(
            f"the run has no {IMAGES}/ with what it was trained on; copy the whole "
            "work directory"
        )
    if not image and len(names) == 1:
        return names[0]
    some = ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")
    if not image:
        raise ValueError(f"the run has {len(names)} models: give --image, of {some}")
    if image not in names:
        near = difflib.get_close_matches(image, names, n=1)
        hint = f"perhaps you meant {near[0]}" if near else f"it has {some}"
        raise FileNotFoundError(f"--image {image} is none of the models: {hint}")
    return image

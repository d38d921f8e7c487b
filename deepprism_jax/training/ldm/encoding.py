"""The latents of a run's images: where they are kept, and how they are made."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepprism_jax.data import EvalBatches, Source, class_names
from deepprism_jax.files import cache_directory
from deepprism_jax.layers.functional import Functional, Values, values_of
from deepprism_jax.models import AutoencoderVQ
from deepprism_jax.ops import to_float
from deepprism_jax.training.ldm.cache import Encode, Part
from deepprism_jax.training.ldm.config import LatentDataConfig
from deepprism_jax.training.ldm.latents import Latents
from deepprism_jax.training.sharding import (
    local_rows,
    place_batch,
    replicated,
    spread,
)

_LOOKED_AT = 8
"""Images of a source that its fingerprint is made of."""


def latents_of(
    data: LatentDataConfig,
    split: str,
    source: Source,
    batches: EvalBatches,
    part: Part,
    *,
    autoencoder: str,
    flip: bool,
) -> Latents:
    """Return the latents of a split, made or to be made.

    Args:
        data: of the config.
        split: its name.
        source: its images.
        batches: the same as batches, of this process.
        part: of this process.
        autoencoder: its fingerprint.
        flip: encode mirror images as well.
    """
    facts = {
        "autoencoder": autoencoder,
        "split": split,
        "image_size": list(data.image_size),
        "channels": data.channels,
        "flip": flip,
        "source": f"{data.source} {data.name}".strip(),
        "images_of_source": len(source),
        "images_of_split": batches.images,
        "resize": data.resize,
        "fingerprint": fingerprint_of(source),
        "classes": list(class_names(source)),
    }
    if data.latents:
        name = f"{split_name(split)}-{batches.images}" + ("-mirrored" if flip else "")
        folder = Path(data.latents).expanduser() / name
    else:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        folder = cache_directory() / "latents" / key[:16]
    return Latents(folder, facts, batches, part, 2 if flip else 1)


def split_name(split: str) -> str:
    """Return the name of a split as that of a folder."""
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in split)
    if kept == split:
        return kept
    return f"{kept}-{hashlib.sha256(split.encode()).hexdigest()[:8]}"


def fingerprint_of(source: Source) -> str:
    """Return a hash of a source: of its files, or else its labels, and a few images.

    Images are evenly spaced, and those that cannot be read are passed over.
    """
    digest = hashlib.sha256()
    within = getattr(source, "source", source)  # of what keeps images in memory
    for file in map(Path, getattr(within, "files", ())):
        about = file.stat()
        text = f"{file.parent.name}/{file.name} {about.st_size} {about.st_mtime_ns}\n"
        digest.update(text.encode())
    if (labels := getattr(within, "labels", None)) is not None:
        digest.update(np.asarray(labels, np.int64).tobytes())
    for place in np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).astype(int)):
        try:
            image = np.ascontiguousarray(source[int(place)]["image"])
        except (OSError, ValueError):
            continue
        digest.update(repr(image.shape).encode())
        digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def make_encode(autoencoder: Any, mesh: Mesh) -> Encode:
    """Return the encoder of an autoencoder, spread over a mesh; see `Encode`."""
    network = Functional(autoencoder)
    values = jax.device_put(values_of(autoencoder), replicated(mesh))
    certain = isinstance(autoencoder, AutoencoderVQ)

    def local(values: Values, images: jax.Array) -> Any:
        code = network.bind(values).encode(to_float(images))
        if certain:
            return code.continuous
        return code.mean, jnp.exp(0.5 * code.logvar)

    on_all: Callable[..., Any] = jax.jit(spread(mesh, local))

    def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        code = on_all(values, place_batch(mesh, np.ascontiguousarray(images)))
        if certain:
            return local_rows(code), None
        mean, std = map(local_rows, code)
        return mean, std

    return encode

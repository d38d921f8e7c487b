"""What the config of a folder of diffusers says of a KL autoencoder."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

CLASS = "AutoencoderKL"
CONFIG = "config.json"

_ONE_CHOICE = {
    "act_fn": ("silu", "swish"),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
}
"""Options that have one value here, alone or at every level."""

_NUMBERS = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
_SWITCHES = ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")
"""True where the config, being older than they are, does not name them."""

# What has no part in a network's structure; latents are scaled by who trains on them.
_SCALING = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
_IGNORED = (*_SCALING, "sample_size", "force_upcast")

log = logging.getLogger(__name__)


class Description(NamedTuple):
    """What a folder's config says."""

    options: dict[str, Any]
    """Of `models.AutoencoderKL`."""
    scaling: dict[str, Any]
    """How its makers scale latents: the keys of diffusers that are not None."""


def describe(path: str | os.PathLike[str]) -> Description:
    """Read the config of a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another class, or of options that `AutoencoderKL` has not.
    """
    path = Path(path)
    config = _read(path)
    where = path / CONFIG

    def refuse(name: str, needs: str):
        raise ValueError(f"{where}: {name}={config.get(name)!r} must be {needs}")

    numbers = {name: config.get(name, least) for name, least in _NUMBERS.items()}
    for name, value in numbers.items():
        if not _is_positive(value):
            refuse(name, "a positive integer")
    widths = config.get("block_out_channels", [64])
    if not isinstance(widths, list) or not widths or not all(map(_is_positive, widths)):
        refuse("block_out_channels", "a list of positive integers, one a level")
    for name, choices in _ONE_CHOICE.items():
        given = config.get(name, choices[0])
        listed = given if isinstance(given, list) else [given]
        if any(value not in choices for value in listed):
            refuse(name, f"{choices[0]}: nothing else is supported")
        if isinstance(given, list) and len(given) != len(widths):
            refuse(name, f"{len(widths)} of them, as block_out_channels={widths}")
    if numbers["in_channels"] != numbers["out_channels"]:
        refuse("out_channels", f"in_channels={numbers['in_channels']}")
    for name in _SWITCHES:
        if not isinstance(config.get(name, True), bool):
            refuse(name, "true or false")
    known = (*_NUMBERS, *_ONE_CHOICE, *_SWITCHES, *_IGNORED, "block_out_channels")
    if unknown := [n for n in config if n not in known and not n.startswith("_")]:
        log.warning("%s: %s not known here, and ignored", where, ", ".join(unknown))
    return Description(
        {
            "conv": "dense",
            "image_channels": numbers["in_channels"],
            "width": (width := math.gcd(*widths)),
            "multipliers": tuple(channels // width for channels in widths),
            "downsamples": len(widths) - 1,
            "downsample_padding": "after",
            "blocks": numbers["layers_per_block"],
            "z_channels": numbers["latent_channels"],
            "norm_groups": numbers["norm_num_groups"],
            "quant_conv": config.get("use_quant_conv", True),
            "post_quant_conv": config.get("use_post_quant_conv", True),
            "attention": config.get("mid_block_add_attention", True),
        },
        {name: config[name] for name in _SCALING if config.get(name) is not None},
    )


def _read(path: Path) -> dict[str, Any]:
    """Return the config of a folder, once it is of the right class."""
    if not (path / CONFIG).is_file():
        inside = path / "vae"
        remedy = (
            f"give {inside}"
            if (inside / CONFIG).is_file()
            else (f"give the folder of an {CLASS} that diffusers has saved")
        )
        raise FileNotFoundError(f"{path} has no {CONFIG}: {remedy}")
    try:
        config = json.loads((path / CONFIG).read_text())
        name = config.get("_class_name")
    except (ValueError, AttributeError):
        raise ValueError(f"{path / CONFIG} is damaged: bring it again") from None
    if name is None and {"class", "options"} <= config.keys():
        raise ValueError(
            f"{path} is an export of this package: nothing is to be imported"
        )
    if name != CLASS:
        raise ValueError(
            f"{path} holds {name!r:.80} of diffusers, and {CLASS} alone can be "
            f"imported: give the folder of one"
        )
    return config


def _is_positive(value: Any) -> bool:
    return type(value) is int and value >= 1

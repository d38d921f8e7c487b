"""Bits a pixel and quality of a quantised latent beside JPEG and WebP.

    taskset -c 0 python benchmarks/rate_distortion.py FOLDER --json f.json --plot f.png

FOLDER has images, for example the 24 of Kodak. An autoencoder for images of any size
encodes each in tiles (a network trained on 32 x 32 has seen no attention over 24,576
positions), its latent is quantised uniformly at several steps and entropy-coded, the
bytes are decoded again, and JPEG and WebP are given at most as many. The network's own
size is told beside, as is that of no other decoder.
"""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import codecs_of_images as codecs
import numpy as np
import tyro
from PIL import Image
from plotting import Curve, Panel, draw_panels
from report import Report, table
from safetensors.numpy import save
from tiled_coder import Coder

from deepprism_jax.layers.functional import values_of
from deepprism_jax.metrics.psnr import psnr
from deepprism_jax.metrics.ssim import ssim
from deepprism_jax.models import AutoencoderKL

LATENT = "latent"


@dataclass(frozen=True)
class Options(Report):
    """What to measure."""

    folder: tyro.conf.Positional[str] = "."
    """Folder of images."""
    model: str = "cifar10-deepprism"
    """Autoencoder (KL): a name of the package, a work directory, or an export."""
    tile: int = 64
    """Side of the tiles that are encoded on their own; 0 takes images whole."""
    steps: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Of the quantiser, in standard deviations of a channel."""
    qualities: tuple[int, ...] = (2, 5, 10, 20, 40, 60, 80, 95)
    """Of JPEG and WebP, for their own curves."""
    limit: int = 0
    """Images to take; 0 takes all."""


def scores(image: np.ndarray, decoded: np.ndarray, coded: bytes) -> dict[str, float]:
    """Return bytes, bits a pixel, PSNR and SSIM of one image."""
    return {
        "bytes": len(coded),
        "bits_per_pixel": 8 * len(coded) / (image.shape[0] * image.shape[1]),
        "psnr": float(psnr(image, decoded)),
        "ssim": float(ssim(image, decoded)),
    }


def measure(
    images: Iterator[np.ndarray], coder: Coder, options: Options
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Return the scores of every image by codec and setting.

    The codecs at the bytes of a step are there as `JPEG at step 0.5`; an image that
    their lowest quality cannot make so small is left out.
    """
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for image in images:
        latent = coder.latent(image)
        others = {codec: codecs.Qualities(image, codec) for codec in codecs.CODECS}
        for step in options.steps:
            stream = codecs.pack(latent, image.shape[:2], step)
            # What the decoder has is the stream alone.
            mine = scores(image, coder.image(*codecs.unpack(stream)), stream)
            found.setdefault((LATENT, f"step {step:g}"), []).append(mine)
            for codec, qualities in others.items():
                if coded := qualities.within(len(stream)):
                    beside = scores(image, codecs.pixels_of(coded), coded)
                    key = (codec, f"at step {step:g}")
                    found.setdefault(key, []).append(beside)
        for codec, qualities in others.items():
            for quality in options.qualities:
                coded = qualities.at(quality)
                beside = scores(image, codecs.pixels_of(coded), coded)
                key = (codec, f"quality {quality}")
                found.setdefault(key, []).append(beside)
    return found


def means(key: tuple[str, str], found: list[dict[str, float]]) -> dict[str, Any]:
    """Return one row: means over images, and ± of the figures of quality."""
    row: dict[str, Any] = {"codec": key[0], "setting": key[1], "images": len(found)}
    for name in found[0]:
        values = [one[name] for one in found]
        row[name] = statistics.mean(values)
        if name in ("psnr", "ssim"):
            row[f"{name}_std"] = statistics.pstdev(values)
    return row


def equal_bytes(
    rows: Mapping[tuple[str, str], dict[str, Any]], options: Options
) -> list[dict[str, Any]]:
    """Return, for each step, every codec at its bytes, where all images reach them."""
    found = []
    for step in options.steps:
        mine = rows[LATENT, f"step {step:g}"]
        beside = {
            codec: rows.get((codec, f"at step {step:g}")) for codec in codecs.CODECS
        }
        there = {
            codec: row
            for codec, row in {LATENT: mine, **beside}.items()
            if row and row["images"] == mine["images"]
        }
        found.append({"bits_per_pixel": mine["bits_per_pixel"], "codecs": there})
    return found


def size_of(model: AutoencoderKL) -> int:
    """Return the bytes of the file of its weights."""
    return len(save({name: np.asarray(x) for name, x in values_of(model).items()}))


def read(options: Options) -> list[Path]:
    """Return the image files, or stop where there is none."""
    kinds = {".png", ".jpg", ".jpeg", ".webp", ".ppm"}
    folder = Path(options.folder)
    there = folder.iterdir() if folder.is_dir() else []
    paths = sorted(path for path in there if path.suffix.lower() in kinds)
    if not paths:
        raise SystemExit(
            f"error: {options.folder} has no images; give a folder of some"
        )
    return paths[: options.limit or None]


def main(options: Options) -> None:
    """Measure, print, and write what is asked for."""
    options.check()
    paths = read(options)
    try:
        model = AutoencoderKL.from_pretrained(options.model)
        coder = Coder.of(model, options.tile)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: --model {options.model}: {error}") from None
    start = time.process_time()
    images = (np.asarray(Image.open(path).convert("RGB")) for path in paths)
    measured = measure(images, coder, options)
    by_key = {key: means(key, found) for key, found in measured.items()}
    rows = [row for key, row in by_key.items() if not key[1].startswith("at ")]
    rows.sort(key=lambda row: (row["codec"] != LATENT, row["codec"], row["bytes"]))
    names = ("bytes", "bits_per_pixel", "psnr", "ssim")
    cells = [
        (f"{row['codec']}, {row['setting']}", *(f"{row[name]:.3f}" for name in names))
        for row in rows
    ]
    title = f"{len(paths)} images of {Path(options.folder).name}, means"
    table(title, ("codec", "bytes", "bits a pixel", "PSNR (dB)", "SSIM"), cells)
    beside = equal_bytes(by_key, options)
    for one in beside:
        parts = (
            f"{codec} {row['psnr']:.2f} dB, {row['ssim']:.3f}"
            for codec, row in one["codecs"].items()
        )
        print(f"at {one['bits_per_pixel']:.3f} bits a pixel: {'; '.join(parts)}")
    model_bytes, seconds = size_of(model), time.process_time() - start
    print(f"the network: {model_bytes:,} bytes; {seconds:.0f} s of a processor")
    options.write_json(
        "rate_distortion",
        codecs=[LATENT, *codecs.CODECS],
        rows=rows,
        equal_bytes=beside,
        images=len(paths),
        model_bytes=model_bytes,
        processor_seconds=seconds,
    )
    if options.plot:
        draw(options.plot, title, rows)


def draw(path: str, title: str, rows: list[dict[str, Any]]) -> None:
    """Draw both qualities over bits a pixel."""
    panels = []
    for name, heading in (("psnr", "PSNR (dB)"), ("ssim", "SSIM")):
        curves = []
        for number, codec in enumerate((LATENT, *codecs.CODECS)):
            mine = [row for row in rows if row["codec"] == codec]
            x, y = ([row[key] for row in mine] for key in ("bits_per_pixel", name))
            curves.append(Curve(number, codec, x, y))
        panels.append(Panel(heading, "bits a pixel", heading, curves))
    draw_panels(path, title, panels, 2)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""What the command line of `sample.py` can ask for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from deepprism_jax.diffusion.samplers import SamplerName

Boxes = Annotated[
    tyro.conf.UseAppendAction[tuple[tuple[int, ...], ...]],
    tyro.conf.arg(metavar="Y X [H W]"),
]


@dataclass(frozen=True)
class Options:
    """What to draw, from which model, and where to."""

    run: Annotated[
        Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="WORKDIR")
    ] = None
    """Work directory of a run that has trained, or `WORKDIR/checkpoints/STEP`."""
    pretrained: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """Instead: a model of the package, see `python -m deepprism_jax.weights models`."""
    count: int = 16
    """How many images to draw."""
    seed: int = 0
    """Seed of the first image; each has the seed after the last, and is named by it."""
    image: str = ""
    """Of a run with several models, the one to draw from: the name of its image."""
    scale_mul: tuple[float, float] = (1.0, 1.0)
    """Height and width of the drawn images, as multiples of the training image's."""
    from_scale: int | None = None
    """First scale that is drawn, 0 the coarsest; what is coarser is kept as it is."""
    sampler: SamplerName = "ddim"
    """How latents are drawn; `heun` and `dpmpp_2m` are of second order."""
    steps: int | None = None
    """Steps of the sampler; left out, ddim takes 50, ddpm 250, the others 25."""
    eta: float = 0.0
    """Noise that `--sampler ddim` draws anew in each step, 0 to 1, which is ddpm."""
    guidance: float = 1.0
    """How far towards the class; 1 is what was learned, above it is exaggerated."""
    classes: tuple[str, ...] = ()
    """Classes to draw, by name or number, seed by seed in turn; left out, all."""
    size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    """Height and width of what is drawn of latents; left out, as in training."""
    input: Path | None = None
    """Image to draw anew, as what was learned looks, instead of drawing from noise."""
    mask: Path | None = None
    """White where `--input` may change; what is black stays."""
    strength: float | None = None
    """Noise on `--input`, as a share of all times; left out, what suits the model."""
    repeats: int | None = None
    """Times that each step of latents is taken with `--mask`; left out, 4."""
    match_histogram: bool = True
    """Give `--input` the training image's colours first; never done with a mask."""
    roi: Annotated[tuple[int, ...], tyro.conf.arg(metavar="Y X H W")] = ()
    """Box of the training image whose content is to be seen at every `--roi-to`."""
    roi_to: Boxes = ()
    """Where in the drawn images, and how large if not as large as that."""
    times: tuple[int, ...] = ()
    """Steps at every scale above the coarsest, instead of the model's own numbers."""
    omega: float = 0.0
    """Share of noise drawn anew in every step above the coarsest scale, 0 to 1."""
    batch: int = 0
    """Images drawn at once on every device; 0 chooses by their size."""
    grid: bool = True
    """Put all images side by side in grid.png too."""
    npz: bool = False
    """Put all images into samples.npz too, with their seeds and classes."""
    output: Path | None = None
    """Directory to make for the images; left out, the next WORKDIR/drawn/NUMBER."""

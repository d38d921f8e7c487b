"""The card of a model that comes with the package, and its row of docs/pretrained.md.

Every figure is read from the files of the model's folder; only the words are written
here, by kind of model and source of data.
"""

import json
from pathlib import Path
from typing import Any

from deepprism_jax.evaluation.legend import lines
from deepprism_jax.evaluation.records import Report, read_json
from deepprism_jax.evaluation.report import markdown
from deepprism_jax.evaluation.table4 import WITHOUT_TIME, Row, column
from deepprism_jax.weights.included import METRICS, TRAINING, UNFINISHED
from deepprism_jax.weights.pretrained import CONFIG, WEIGHTS

DATA = {
    "cifar10": "CIFAR-10 (Krizhevsky, Learning Multiple Layers of Features from Tiny "
    "Images, 2009), 50,000 photographs of 32x32. Its makers state no licence and ask "
    "for the citation; no image of it is part of the package.",
    "photos": "The seven photographs of the `train` split of `photos`, which "
    "come inside scikit-image and scikit-learn (`flower` is CC BY 2.0; of the others "
    "see scikit-image); no image of them is part of this package.",
    "china": "`china.jpg`, which comes inside scikit-learn: a photograph by "
    "danielbuechele, CC BY 2.0.",
}
"""What a model has seen and under which licence, by the source or the image."""

USES = {
    "AutoencoderKL": "Codes of images for study, compression experiments and latent "
    "diffusion; a start for training at other widths (`--init-from`).",
    "AutoencoderVQ": "Discrete codes of images, for study, compression experiments and "
    "latent diffusion; a start for training at other widths (`--init-from`).",
    "SinDDM": "Drawing images like the one it was trained on, of any size, and style "
    "transfer onto other images.",
    "UNet": "Drawing small images by class, as an example of latent diffusion on codes "
    "of three numbers a position.",
}

LIMITS = {
    "AutoencoderKL": "It was trained on images of {size}: other sizes are encoded, but "
    "attention then sees more positions than ever before, and what is much larger is "
    "better cut into tiles. Fine texture is lost: it was trained for {aim}. "
    "Codes are not near a standard normal, so decoding noise gives noise.",
    "SinDDM": "It knows one image. For variations, regions of interest and the colours "
    "of style transfer that image is needed, which is not part of the package.",
    "UNet": "Small, and trained for a short time: objects are rarely recognisable. It "
    "may reproduce biases of its data.",
}
LIMITS["AutoencoderVQ"] = LIMITS["AutoencoderKL"].rpartition(" Codes are not")[0]

FIGURES = (
    *("psnr", "ssim", "lpips_squeeze", "fid", "efficientnet_lite0_frechet"),
    *("sifid_squeeze", "pixel_diversity"),
)
"""What the row of a model tells, as far as it was measured."""


class Folder:
    """The files of a model."""

    def __init__(self, path: Path):
        self.path = path
        self.description = json.loads((path / CONFIG).read_text())
        self.training = json.loads((path / TRAINING).read_text())
        self.report: Report = read_json(path / METRICS)

    @property
    def kind(self) -> str:
        """Name of its class."""
        return self.description["class"]

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return sum(file.stat().st_size for file in self.path.rglob(WEIGHTS))

    @property
    def row(self) -> Row:
        """What was measured of the model, not of others beside it."""
        return self.report.rows[0]


def card(folder: Path, name: str) -> str:
    """Return the model card."""
    model = Folder(folder)
    training, kind = model.training, model.kind
    config = training["config"]
    size = "x".join(map(str, config["data"]["image_size"]))
    stored = training["stored"]
    aim = "a small squared error"
    if config.get("loss", {}).get("ssim_weight"):
        aim += " and a high SSIM"
    with_others = [p.parent.name for p in folder.glob(f"*/{WEIGHTS}")]
    rounded = training.get("rounded_since")
    which = "before they were rounded to float16" if rounded else "as they are here"
    beside = f" ({', '.join(with_others)} included)" if with_others else ""
    table = markdown(model.report.rows, lines(model.report.rows, model.report.facts))
    return f"""# {name}

{kind} of deepprism_jax {model.description["deepprism_jax"]}, {_counted(model)}; \
{model.bytes:,} bytes of weights{beside}, {stored}.

```python
{_code(kind, name, training)}
```

## Data and licence

{training["data"]}

The weights are part of deepprism_jax and under its licence, Apache-2.0.

## Training

```sh
{training["command"]}
```

{training["step"]:,} steps of {config["train"]["batch_size"]} images; all parameters \
were trained, and are here as moving averages \
(decay {config["train"]["ema_decay"]:g}). The whole configuration is in `{TRAINING}`.

## Figures

Measured on the weights {which}; in full in `{METRICS}`.

{table.strip()}

## Intended use

{USES[kind]}

## Limits

{LIMITS[kind].format(size=size, aim=aim)}
"""


def row(folder: Path) -> str:
    """Return the model's row of the table in docs/pretrained.md."""
    model = Folder(folder)
    figures = []
    for name in FIGURES:
        score = model.row.scores.get(name)
        if score is not None:
            known = column(name)
            figures.append(f"{known.heading} {score.value:.{known.decimals}f}")
    cells = (
        f"`{folder.name}`",
        f"`{model.kind}`",
        _counted(model).replace(" parameters", ""),
        f"{model.bytes:,}",
        _trained_on(model.training),
        ", ".join(figures),
    )
    return f"| {' | '.join(cells)} |"


HEADER = """\
| name | class | parameters | bytes | trained on | measured |
|---|---|---:|---:|---|---|
"""


def table(folder: Path) -> str:
    """Return the table of all models, in Markdown."""
    paths = sorted(path.parent for path in folder.glob(f"*/{TRAINING}"))
    done = (path for path in paths if path.suffix != UNFINISHED)
    return HEADER + "".join(f"{row(path)}\n" for path in done)


def _counted(model: Folder) -> str:
    total = f"{model.row.parameters:,} parameters"
    if without := model.row.scores.get(WITHOUT_TIME):
        return f"{total} ({without.value:,.0f} without those of time)"
    return total


def _trained_on(training: dict[str, Any]) -> str:
    data = training["config"]["data"]
    if image := training.get("image"):
        height, width = image["size"][:2]
        return f"`{image['name']}`, {height}x{width}"
    height, width = data["image_size"]
    named = data["name"] or Path(data["path"]).name
    source = data["source"] if data["source"] in ("cifar10", "photos") else named
    return f"{source}, {height}x{width}"


def _code(kind: str, name: str, training: dict[str, Any]) -> str:
    if training["system"] != "autoencoder":
        module = {"SinDDM": "sinddm", "UNet": "unet"}[kind]
        return f"""\
from deepprism_jax.models.{module} import {kind}
from deepprism_jax.sampling import draw

images = list(draw(pretrained="{name}", count=4))  # uint8 [H, W, 3] each
network = {kind}.from_pretrained("{name}")  # what predicts
# from the shell: python sample.py --pretrained {name}"""
    return f"""\
from deepprism_jax.models import {kind}

model = {kind}.from_pretrained("{name}")
codes = model.encode(images).mode()  # of float images [B, H, W, 3] in [-1, 1]
images = model.decode(codes)"""

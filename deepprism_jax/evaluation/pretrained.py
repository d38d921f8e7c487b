"""A model of the package by its name, with what is known of its training."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepprism_jax.evaluation.runs import FoundRun
from deepprism_jax.training.preflight import refusing
from deepprism_jax.training.workdir import from_dict
from deepprism_jax.weights.included import TRAINING, folder_of

RESULTS = Path("runs", "pretrained")
"""Folder in the working directory for what is made of models of the package."""


@dataclass(frozen=True)
class Pretrained:
    """A model of the package."""

    name: str
    folder: Path
    kind: str
    """Name of its system, see `training.systems`."""
    config: Any
    """Of the run that trained it; it names no path of the machine it ran on."""
    step: int
    image: tuple[str, tuple[int, int, int]] | None = None
    """Of a model of one image: its name, and height, width and channels."""
    digest: str = ""
    """SHA-256 of the numbers of that image, as it was learnt."""

    @property
    def results(self) -> Path:
        """Where figures and drawn images go: the package's own folder is not ours."""
        return RESULTS / self.name

    @property
    def as_run(self) -> FoundRun:
        """The model as if it were a run: its folder holds all that drawing needs."""
        return FoundRun(self.folder, self.config, self.folder, self.results, self.step)


def open_pretrained(name: str) -> Pretrained:
    """Open a model of the package.

    Raises:
        PreflightError: there is none of this name, or its files are damaged.
    """
    with refusing():
        folder = folder_of(name)
        try:
            record = json.loads((folder / TRAINING).read_text())
            config = from_dict(record["config"], record["system"])
            image = record.get("image")
            known = (image["name"], tuple(image["size"])) if image else None
            digest = image.get("sha256", "") if image else ""
            return Pretrained(
                name, folder, record["system"], config, record["step"], known, digest
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{folder / TRAINING} lacks {error}: install the package again"
            ) from None

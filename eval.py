"""Measure a trained autoencoder, a diffusion model, or a folder of generated images.

Prints the figures of the paper's Table 4 and more, of a model beside its linear
baselines, with what they were measured on and by; writes them as metrics.json, .md and
.csv, every image's figures as per_image.csv, and pictures. Of models of latents it
draws samples and compares them with the run's data; of models of one image it draws
samples, and measures SIFID and diversity. See docs/evaluation.md.
"""

import sys
from collections.abc import Sequence

from deepprism_jax.evaluation import program
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.setup import exit_code
from deepprism_jax.training.cli import read


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, see `exit_code`."""
    return exit_code(
        lambda: program.main(read(Options, argv, prog="eval.py", description=__doc__)),
        interrupted="features of the images are kept",
    )


if __name__ == "__main__":
    sys.exit(main())

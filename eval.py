"""Measure a trained autoencoder, models of one image, or a folder of generated images.

Prints the figures of the paper's Table 4 and more, of a model beside its linear
baselines, with what they were measured on and by; writes them as metrics.json, .md and
.csv, every image's figures as per_image.csv, and pictures. Of models of one image it
draws samples, and measures SIFID and diversity. See docs/evaluation.md.
"""

import sys
from collections.abc import Sequence

from deepprism_jax.evaluation import program
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.training.cli import read, report
from deepprism_jax.training.preflight import PreflightError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 2 says that it was refused before any work, 1 that it
    failed later.
    """
    try:
        program.main(read(Options, argv, prog="eval.py", description=__doc__))
    except PreflightError as error:
        return report(error)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; features of the images are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

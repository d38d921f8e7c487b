"""Draw images from a trained model.

From a run of latent diffusion: images of its classes, of any size, variations of an
image of yours, or what a mask leaves out of it. From a run that knows one image: random
ones of any size and shape, an image of yours in its style, what was pasted into it
blended in, or a region of it where you want to have it. Every image is a file, named by
its seed. See docs/sampling.md.
"""

import sys
from collections.abc import Sequence

from deepprism_jax.evaluation.setup import exit_code
from deepprism_jax.sampling import program
from deepprism_jax.sampling.options import Options
from deepprism_jax.training.cli import read


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, see `exit_code`."""
    return exit_code(
        lambda: program.main(
            read(Options, argv, prog="sample.py", description=__doc__)
        ),
        interrupted="the images drawn so far are kept",
    )


if __name__ == "__main__":
    sys.exit(main())

"""Draw images from a trained model.

Random ones of any size and shape, an image of yours in the style of the training image,
what was pasted into it blended in, or a region of it where you want to have it. Every
image is a file, named by its seed. See docs/sampling.md.
"""

import sys
from collections.abc import Sequence

from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.sampling import program
from deepprism_jax.sampling.options import Options
from deepprism_jax.training.cli import read, report
from deepprism_jax.training.preflight import PreflightError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 2 says that it was refused before any work, 1 that it
    failed later.
    """
    try:
        program.main(read(Options, argv, prog="sample.py", description=__doc__))
    except PreflightError as error:
        return report(error)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the images drawn so far are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

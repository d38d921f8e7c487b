"""Train an experiment of `configs/`: python train.py CONFIG [--override value]."""

import sys
from collections.abc import Sequence

from deepprism_jax.training.allocator import start_with_tcmalloc

if __name__ == "__main__":
    start_with_tcmalloc()  # now, for what follows takes a second to import

from configs import CONFIGS
from deepprism_jax.training import cli
from deepprism_jax.training.preflight import PreflightError


def main(argv: Sequence[str]) -> int:
    """Do what the command line asks for and return the exit code (see `--help`)."""
    try:
        run = cli.parse(argv, CONFIGS)
        # JAX takes seconds to import, and help and mistakes need none of it.
        from deepprism_jax.training import program

        return program.main(run)
    except PreflightError as error:
        return cli.report(error)
    except KeyboardInterrupt:
        print(
            "interrupted; nothing was saved since the last checkpoint", file=sys.stderr
        )
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

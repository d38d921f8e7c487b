"""`python -m deepprism_jax.ops.native` compiles the kernels for this machine."""

import sys

from deepprism_jax.ops.native.library import BuildError, build


def main() -> None:
    """Compile, and say where to."""
    try:
        print(f"built {build()}")
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

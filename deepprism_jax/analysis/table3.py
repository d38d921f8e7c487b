"""Table 3 of the paper: parameters of the autoencoder, dense and DeepPrism."""

from typing import NamedTuple

from flax import nnx
from rich.table import Table

from deepprism_jax.analysis.parameters import parameter_count
from deepprism_jax.layers import ConvKind
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models import AutoencoderKL


class Printed(NamedTuple):
    """One row as the paper prints it: figures cut after two or three digits."""

    dense: float
    deepprism: float
    ratio: float


PRINTED = {
    128: Printed(6.36e6, 29.5e3, 216),
    256: Printed(25.3e6, 57.8e3, 438),
    512: Printed(101e6, 114e3, 886),
    1024: Printed(405e6, 227e3, 1784),
}
"""Table 3 by width C."""


def abstract_autoencoder(width: int, conv: ConvKind, fields: int = 1) -> AutoencoderKL:
    """The paper's autoencoder without its arrays."""
    return nnx.eval_shape(
        lambda: AutoencoderKL(width=width, conv=conv, fields=fields, rngs=nnx.Rngs(0))
    )


def autoencoder_parameters(width: int, conv: ConvKind) -> int:
    """Exact parameters of the paper's autoencoder; no array is made."""
    return parameter_count(Functional(abstract_autoencoder(width, conv)).shapes)


def table3() -> Table:
    """Exact counts of this package beside the printed ones, and their ratios."""
    table = Table(title="Table 3: parameters of the autoencoder")
    for heading in ("C", "dense", "printed", "DeepPrism", "printed", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("printed", justify="right")
    for width, printed in PRINTED.items():
        dense = autoencoder_parameters(width, "dense")
        deepprism = autoencoder_parameters(width, "deepprism")
        table.add_row(
            f"{width}",
            f"{dense:,}",
            f"{printed.dense / 1e6:.3g}M",
            f"{deepprism:,}",
            f"{printed.deepprism / 1e3:.3g}K",
            f"{dense / deepprism:.1f}",
            f"{printed.ratio:.0f}",
        )
    return table

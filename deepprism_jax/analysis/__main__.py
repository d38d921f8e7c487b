"""`python -m deepprism_jax.analysis NAME` prints one analysis; `--help` lists them."""

import sys

import tyro
from rich.console import Console
from rich.table import Table

from deepprism_jax.analysis.costs import cost_table, layer_costs
from deepprism_jax.analysis.parameters import parameter_table
from deepprism_jax.analysis.table3 import abstract_autoencoder, table3
from deepprism_jax.layers import ConvKind
from deepprism_jax.layers.functional import Functional


def parameters(
    width: int = 256, conv: ConvKind = "deepprism", fields: int = 1
) -> Table:
    """Parameters of an autoencoder by network and kind of layer.

    Args:
        width: channels C of every hidden layer.
        conv: kind of every hidden convolution.
        fields: fields of `deepprism`.
    """
    model = abstract_autoencoder(width, conv, fields)
    return parameter_table({"autoencoder": Functional(model).shapes})


def costs(
    width: int = 256,
    conv: ConvKind = "deepprism",
    fields: int = 1,
    size: tuple[int, int] = (32, 32),
) -> Table:
    """Operations and bytes of an autoencoder, layer by layer, for one image.

    Args:
        width: channels C of every hidden layer.
        conv: kind of every hidden convolution.
        fields: fields of `deepprism`.
        size: height and width of the image.
    """
    model = abstract_autoencoder(width, conv, fields)
    title = f"AutoencoderKL, {conv}, C = {width}, one image of {size[0]}x{size[1]}"
    return cost_table(title, layer_costs(model, (1, *size, 3), method="reconstruct"))


def plan() -> Table:
    """Compile a training step for a slice that is not there; see `plan --help`."""
    raise AssertionError("main goes another way")


def main() -> None:
    """Print the analysis that the command line names."""
    if sys.argv[1:2] == ["plan"]:
        # It imports all of training, and its options are those of the experiment.
        from deepprism_jax.analysis import plan_command

        sys.exit(plan_command.main(sys.argv[2:]))
    try:
        table = tyro.extras.subcommand_cli_from_dict(
            {"table3": table3, "parameters": parameters, "costs": costs, "plan": plan},
            prog="python -m deepprism_jax.analysis",
            description=__doc__,
        )
    except ValueError as error:
        sys.exit(str(error))
    Console().print(table)


if __name__ == "__main__":
    main()

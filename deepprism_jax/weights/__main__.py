"""`python -m deepprism_jax.weights` brings networks that others have trained."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.table import Table

from deepprism_jax.analysis.parameters import parameter_count
from deepprism_jax.export.command import Format, export_model
from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.weights import diffusers_config, store
from deepprism_jax.weights.acquire import AcquireError, acquire
from deepprism_jax.weights.download import Watch
from deepprism_jax.weights.included import FOLDER, list_pretrained
from deepprism_jax.weights.pretrained import WEIGHTS, class_name
from deepprism_jax.weights.registry import REGISTRY, entry

Names = tyro.conf.Positional[tuple[str, ...]]
Place = tyro.conf.Positional[Path]


def show() -> int:
    """List what there is, what it takes, and what is on this machine."""
    table = Table(box=None, header_style="")
    for heading in ("name", "network", "download", "licence", "on this machine"):
        table.add_column(heading, no_wrap=heading == "name")
    for name, known in REGISTRY.items():
        size = f"{known.size / 1e6:,.1f} MB" if known.size > 1e5 else f"{known.size} B"
        table.add_row(name, known.what, size, known.licence, _here(name))
    Console().print(table)
    print(f"in {store.directory()}")
    return 0


def _here(name: str) -> str:
    if found := store.find(name):
        return f"by {store.facts(found).get('checked', 'nothing')}"
    return "not its weights" if store.fault(name) else "no"


def models() -> int:
    """List the trained models that come with the package."""
    table = Table(box=None, header_style="")
    for heading in ("name", "class", "bytes"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left")
    for name in list_pretrained():
        size = (FOLDER / name / WEIGHTS).stat().st_size
        table.add_row(name, class_name(FOLDER / name), f"{size:,}")
    Console().print(table)
    print(f"in {FOLDER}, each with its card, README.md")
    return 0


def get(
    names: Names,
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    url: str | None = None,
) -> int:
    """Download weights, or take a file of them, check them and keep them.

    Args:
        names: names of the list.
        source: file that is there already; for one name.
        url: address to download from instead of the list's; for one name.
    """
    if not names or (len(names) > 1 and (source is not None or url is not None)):
        return _refuse("give a name of the list; with --from or --url only one")
    failed = 0
    for name in names:
        try:
            entry(name)
        except ValueError as error:
            return _refuse(str(error))
    for name in names:
        there = store.find(name)
        if there is not None:
            print(f"{name} is there: {there}; delete it to get it anew")
            continue
        if wrong := store.fault(name):
            print(f"{store.place(name)} is not {name}: {wrong}; getting it anew")
        try:
            with _progress(name) as watch:
                path = acquire(name, source=source, address=url, watch=watch)
        except AcquireError as error:
            failed = _refuse(str(error))
            continue
        checked = store.facts(path)["checked"]
        print(f"{name}: {path}, checked by {checked}, {store.fingerprint(path)}")
    return failed


def path(name: tyro.conf.Positional[str]) -> int:
    """Print the file of some weights.

    Args:
        name: a name of the list.
    """
    try:
        print(store.need(name))
    except (FileNotFoundError, ValueError) as error:
        return _refuse(str(error))
    return 0


def take(
    folder: Annotated[Place, tyro.conf.arg(metavar="FOLDER")],
    output: Annotated[Place, tyro.conf.arg(metavar="OUTPUT")],
) -> int:
    """Import an autoencoder of latent-diffusion or Stable Diffusion.

    Args:
        folder: `config.json` and `diffusion_pytorch_model.safetensors`, of diffusers.
        output: directory to make, an export for `from_pretrained` and for training.
    """
    if output.exists():
        return _refuse(f"{output} is there: choose another directory, or delete it")
    try:
        scaling = diffusers_config.describe(folder).scaling
        model = AutoencoderKL.from_diffusers(folder)
        model.save_pretrained(output)
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    count, z = parameter_count(values_of(model)), model.options["z_channels"]
    pixels = f"{model.factor} x {model.factor} pixels"
    print(f"{output}: {count:,} parameters, {z} numbers for every {pixels}")
    if scaling:
        told = ", ".join(f"{name} {value}" for name, value in scaling.items())
        print(f"its makers' {told} is not applied: training measures its own")
    return 0


def give(
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME_OR_PATH")],
    output: Path,
    kind: Annotated[Format, tyro.conf.arg(name="format")] = "stablehlo",
    model: str = "",
) -> int:
    """Export a trained model as one file that is run without this package.

    Args:
        source: a model in the package, an export, a training run or a checkpoint.
        output: file to make.
        kind: `stablehlo`, for JAX on CPUs, GPUs and TPUs, or `onnx`.
        model: which one, of several that were trained together.
    """
    try:
        names = export_model(source, output, kind, model=model)
    except (OSError, ValueError, ImportError) as error:
        return _refuse(str(error))
    print(f"{output}: {', '.join(names)}, {output.stat().st_size:,} bytes")
    return 0


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[int], Watch]]:
    """Give out what draws a bar from the first byte on; without one, nothing."""
    with contextlib.ExitStack() as stack:

        def begin(size: int) -> Watch:
            columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
            console = Console(stderr=True)
            bar = Progress("{task.description}", *columns, console=console)
            task = bar.add_task(name, total=size)

            def watch(done: int) -> None:
                if not bar.live.is_started:
                    stack.enter_context(bar)
                bar.update(task, completed=done)

            return watch

        yield begin


def _refuse(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 2 says that something could not be had."""
    return tyro.extras.subcommand_cli_from_dict(
        {
            "list": show,
            "models": models,
            "get": get,
            "path": path,
            "import": take,
            "export": give,
        },
        prog="python -m deepprism_jax.weights",
        description=__doc__,
        args=arguments,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

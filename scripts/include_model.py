"""Put a finished run into the package: `from_pretrained` then finds it by name.

    python scripts/include_model.py RUN NAME                  # evaluates, writes card
    python scripts/include_model.py RUN NAME --metrics FILE   # figures that are there
    python scripts/include_model.py --table                   # of docs/pretrained.md

A model of that name is replaced once all of the new one is there; what `--data` said of
it is kept. `-- OPTION ...` at the end is handed to `eval.py`. See docs/pretrained.md.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import model_card  # noqa: E402
from training_command import training_command  # noqa: E402

import eval as evaluation  # noqa: E402
from configs import CONFIGS  # noqa: E402
from deepprism_jax.data.images import decode_whole  # noqa: E402
from deepprism_jax.evaluation.runs import newest_checkpoint  # noqa: E402
from deepprism_jax.evaluation.single_image.trained import digest_of  # noqa: E402
from deepprism_jax.export.programs import CLASSES  # noqa: E402
from deepprism_jax.files import replace_directory, write_text  # noqa: E402
from deepprism_jax.layers.functional import values_of  # noqa: E402
from deepprism_jax.training.ldm import system as ldm  # noqa: E402
from deepprism_jax.training.preflight import PreflightError  # noqa: E402
from deepprism_jax.training.sinddm.system import IMAGES  # noqa: E402
from deepprism_jax.training.systems import name_of  # noqa: E402
from deepprism_jax.training.workdir import (  # noqa: E402
    MAY_CHANGE,
    read_config,
    to_dict,
)
from deepprism_jax.weights import included  # noqa: E402
from deepprism_jax.weights.pretrained import (  # noqa: E402
    CONFIG,
    WEIGHTS,
    class_name,
    describe,
)

PAGE = ROOT / "docs" / "pretrained.md"
BEGIN, END = "<!-- models -->\n", "<!-- end of models -->\n"

PATHS = ("data.path", "data.latents", "autoencoder.path", "train.init_from")
"""Fields that name places of the machine that trained: the last part is kept."""


def include(run: Path, name: str, options: argparse.Namespace) -> Path:
    """Write the folder of a model and return it.

    Raises:
        ValueError, OSError, PreflightError: the run or its figures cannot be read.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(
            f"NAME={name} must be words of small letters and digits with hyphens "
            "between them, for example cifar10-deepprism"
        )
    config: Any = read_config(run)
    if options.autoencoder:
        of_latents = replace(config.autoencoder, path=options.autoencoder)
        config = replace(config, autoencoder=of_latents)
    step = int(newest_checkpoint(run).name)
    final = included.FOLDER / name
    with building(final) as folder:
        model = CLASSES[class_name(run)].from_pretrained(run)
        write_model(folder, model, half=options.half)
        extra = ["--path", config.data.path] if config.data.path else []
        record: dict[str, Any] = {"system": name_of(config), "step": step}
        if record["system"] == "ldm":
            if (autoencoder := ldm.kept_autoencoder(run)) is not None:
                write_model(folder / ldm.AUTOENCODER, autoencoder, half=options.half)
            if (run / ldm.CLASSES).is_file():
                shutil.copyfile(run / ldm.CLASSES, folder / ldm.CLASSES)
        if record["system"] == "sinddm":
            (file,) = (run / IMAGES).glob("*.png")
            image = decode_whole(file, config.data.channels)
            record["image"] = {
                "name": file.stem,
                "size": list(image.shape),
                "sha256": digest_of(image),
            }
            extra = ["--real", str(file)] if config.data.path else []
        precision = "float16, widened on loading" if options.half else "float32"
        values = without_paths(to_dict(config))
        record |= {
            "stored": precision,
            "rounded_since": bool(options.half and options.metrics),
            "data": said_of_data(final, record, values, options.data),
            "command": command(values, record["system"]),
            "config": values,
        }
        write_json(folder / included.TRAINING, record)
        if options.metrics:
            take_metrics(options.metrics, folder, name, step)
        else:
            measure(folder, name, [*extra, *options.rest])
        write_text(folder / included.CARD, model_card.card(folder, name))
    return final


@contextmanager
def building(final: Path) -> Iterator[Path]:
    """Give a folder beside the final one, and put it in its place at the end."""
    part = final.with_name(final.name + included.UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        replace_directory(final, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_model(folder: Path, model: Any, *, half: bool) -> None:
    """Write what `from_pretrained` reads, without Orbax's copy."""
    folder.mkdir(exist_ok=True)
    dtype = np.float16 if half else np.float32
    values = {name: np.asarray(x, dtype) for name, x in values_of(model).items()}
    (folder / WEIGHTS).write_bytes(save(values))
    write_json(folder / CONFIG, describe(model))


def measure(folder: Path, name: str, options: list[str]) -> None:
    """Evaluate the very files that are to be shipped."""
    output = folder / "eval"
    arguments = ["--pretrained", folder.name, "--output", str(output), *options]
    if evaluation.main(arguments) != 0:
        raise ValueError(
            f"{name} could not be evaluated, see above; it is not included"
        )
    take_metrics(output / included.METRICS, folder, name, None)
    shutil.rmtree(output)


def take_metrics(file: Path, folder: Path, name: str, step: int | None) -> None:
    """Copy what `eval.py` wrote, without paths of this machine.

    Raises:
        ValueError: it is of another step.
    """
    report = json.loads(file.read_text())
    facts = report["provenance"]
    if step not in (None, facts.get("step")):
        raise ValueError(
            f"{file} is of step {facts.get('step')} and the run is at {step}: evaluate "
            "it again, or leave out --metrics"
        )
    facts["workdir"] = name
    if facts.get("path"):
        facts["path"] = Path(facts["path"]).name
    write_json(folder / included.METRICS, report)


def said_of_data(
    final: Path, record: dict[str, Any], config: dict[str, Any], given: str
) -> str:
    """Return what the card says of the data and their licence.

    Raises:
        ValueError: nothing is known of them.
    """
    if given:
        return given
    key = config["data"].get("source") or record["image"]["name"]
    if key in model_card.DATA:
        return model_card.DATA[key]
    if (final / included.TRAINING).is_file():
        return json.loads((final / included.TRAINING).read_text())["data"]
    raise ValueError(f"nothing is known of the data {key!r}: give --data, with licence")


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without places of the machine that trained."""
    for name in PATHS:
        group, _, field = name.partition(".")
        if config.get(group, {}).get(field):
            config[group][field] = Path(config[group][field]).name
    return config


def command(values: Any, system: str) -> str:
    """Return the command that trains so: the nearest experiment, and what differs.

    Args:
        values: the config, as JSON has it.
        system: of the experiments to choose from.
    """
    ours = [n for n, m in CONFIGS.items() if name_of(m.get_config()) == system]
    untold = set(MAY_CHANGE) - {"train.steps", "autoencoder.path"}
    _, line = training_command(
        values,
        ours,
        untold=untold,
        show=lambda name, value: Path(value).name if name in PATHS else value,
    )
    return line


def write_json(path: Path, values: Any) -> None:
    """Write values as they are read again."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_table() -> None:
    """Bring the table in the documentation up to date."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = model_card.table(included.FOLDER)
    write_text(PAGE, f"{before}{BEGIN}\n{table}\n{END}{after}")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; 2 says that it was refused."""
    argv = sys.argv[1:] if argv is None else argv
    own, rest = list(argv), []
    if "--" in own:
        at = own.index("--")
        own, rest = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="a run that has finished")
    parser.add_argument("name", nargs="?", help="of the model in the package")
    parser.add_argument(
        "--autoencoder", help="name in the package of the one whose latents are drawn"
    )
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--metrics", type=Path, help="metrics.json of the run's end")
    parser.add_argument("--data", default="", help="what the data are, and licence")
    parser.add_argument("--table", action="store_true", help="write the table alone")
    options = parser.parse_args(own)
    options.rest = rest
    try:
        if not options.table:
            if options.name is None:
                raise ValueError("give RUN and NAME, or --table")
            folder = include(options.run, options.name, options)
            total = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            print(f"{folder}: {total:,} bytes")
        write_table()
    except (ValueError, OSError, PreflightError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

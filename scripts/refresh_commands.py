"""Write the commands of records and model cards anew, where an experiment has changed.

    python scripts/refresh_commands.py            # then scripts/results.py
    python scripts/refresh_commands.py --check    # writes nothing; 1 says what is stale

A command names what a run has otherwise than its experiment. So a new default of one
changes the commands of the runs that were there before it.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import include_model  # noqa: E402
import model_card  # noqa: E402
import results_add  # noqa: E402
import results_records  # noqa: E402

from deepprism_jax.files import write_text  # noqa: E402
from deepprism_jax.weights import included  # noqa: E402

RECORDS = ROOT / "results" / "runs"


def of_records(*, write: bool) -> Iterator[tuple[Path, str, str]]:
    """Give records whose command is stale: the file, that command, the right one.

    Args:
        write: also put the right one in its place.
    """
    for row in results_records.read(RECORDS).values():
        for record in row.records:
            if not record.command:
                continue
            words = shlex.split(record.command)
            experiment = words[2]
            workdir = f"runs/{experiment}"
            if "--workdir" in words:
                workdir = words[words.index("--workdir") + 1]
            right = results_add.command(record.config, experiment, workdir, record.name)
            if right == record.command:
                continue
            if write:
                results_records.write(replace(record, command=right), RECORDS)
            yield RECORDS / record.path, record.command, right


def of_models(*, write: bool) -> Iterator[tuple[Path, str, str]]:
    """Give the same of models of the package, whose cards have the command too."""
    for file in sorted(included.FOLDER.glob(f"*/{included.TRAINING}")):
        training = json.loads(file.read_text(encoding="utf-8"))
        right = include_model.command(training["config"], training["system"])
        if right == training["command"]:
            continue
        if write:
            include_model.write_json(file, {**training, "command": right})
            card = model_card.card(file.parent, file.parent.name)
            write_text(file.parent / included.CARD, card)
        yield file, training["command"], right


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 1 where `--check` found something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(argv).check
    try:
        found = [*of_records(write=not check), *of_models(write=not check)]
    except results_records.RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for file, old, new in found:
        print(f"{file.relative_to(ROOT)}\n  {old}\n  {new}")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())

"""The command that trained a run: the nearest experiment, and what differs from it."""

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

Show = Callable[[str, Any], Any]
"""Returns the value of a dotted field as a command is to have it."""


def training_command(
    config: Mapping[str, Mapping[str, Any]],
    experiments: Iterable[str],
    *,
    untold: Collection[str],
    show: Show,
) -> tuple[str, str]:
    """Return the experiment with the fewest differences, and the command.

    Fields that the experiments, of a newer version, do not have are left out.

    Args:
        config: of the run, as its `config.json` has it.
        experiments: of `configs/`, at least one.
        untold: dotted fields that a command need not have.
        show: for values, of which places of a machine are none.
    """
    from configs import CONFIGS

    found = {
        name: _overrides(config, asdict(CONFIGS[name].get_config()), untold, show)
        for name in experiments
    }
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, " ".join([f"python train.py {nearest}", *found[nearest]])


def _overrides(
    config: Mapping[str, Mapping[str, Any]],
    base: Mapping[str, Mapping[str, Any]],
    untold: Collection[str],
    show: Show,
) -> list[str]:
    words = []
    for group, fields in config.items():
        for field, value in fields.items():
            name = f"{group}.{field}"
            if name in untold or field not in base.get(group, {}):
                continue
            there = base[group][field]
            same = list(there) == value if isinstance(there, tuple) else there == value
            if not same:
                words.append(_option(name, show(name, value)))
    return words


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        group, _, field = name.partition(".")
        name = name if value else f"{group}.no-{field}"
        return f"--{name}".replace("_", "-")
    many = value if isinstance(value, list) else [value]
    return f"--{name.replace('_', '-')} {shlex.join(map(str, many))}"

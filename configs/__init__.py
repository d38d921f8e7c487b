"""Experiments, one a file: its docstring is the lab note, `get_config()` the config.

`CONFIGS` maps the name of each to its module; a new file is found by being there.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

CONFIGS: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}")
    for module in iter_modules(__path__)
}

"""Trained models that come with the package, and how they are found by name.

Each is a folder of `deepprism_jax/pretrained`, an export without Orbax's copy:

    NAME/config.json, model.safetensors   class, options, version; float32 or float16
         training.json                    the config of the run that trained it
         metrics.json                     what eval.py measured of these very files
         README.md                        the model card, made of the files above

`scripts/include_model.py` makes them of finished runs. See docs/pretrained.md.
"""

import difflib
import os
from pathlib import Path

import deepprism_jax
from deepprism_jax.paths import AnyPath, as_path, is_remote

FOLDER = Path(deepprism_jax.__file__).parent / "pretrained"

UNFINISHED = ".part"
"""How the folder of a model ends that is being put into the package."""

TRAINING = "training.json"
METRICS = "metrics.json"
CARD = "README.md"


def list_pretrained() -> list[str]:
    """Return the names of the models in the package, sorted."""
    if not FOLDER.is_dir():
        return []
    names = (path.parent.name for path in FOLDER.glob("*/config.json"))
    return sorted(name for name in names if not name.endswith(UNFINISHED))


def located(path: str | os.PathLike[str]) -> AnyPath:
    """Return the folder of a model in the package, or the path as it is.

    A bare name, without any slash, is that of a model in the package, unless the
    working directory has a directory of this name: that is taken.

    Raises:
        FileNotFoundError: it is a bare name, and neither is there.
    """
    text = os.fspath(path)
    bare = not is_remote(text) and Path(text).name == text and text not in ("", "..")
    if not bare or Path(text).is_dir():
        return as_path(path)
    return folder_of(text, "there is no directory {name} here, and ")


def folder_of(name: str, before: str = "there is ") -> Path:
    """Return the folder of a model in the package.

    Args:
        name: of the model.
        before: begins the message of the error.

    Raises:
        FileNotFoundError: there is none of that name; lists those that there are.
    """
    names = list_pretrained()
    if name in names or (name.endswith(UNFINISHED) and (FOLDER / name).is_dir()):
        return FOLDER / name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"perhaps you meant {near[0]}; " if near else ""
    raise FileNotFoundError(
        f"{before.format(name=name)}no model {name!r} in the package: "
        f"{hint}it has {', '.join(names) or 'none'}"
    )

"""Writes the weights that the page runs: `python demo/make_model.py NAME_OR_PATH`.

They become `model.js` beside this file, a script and not data, since a page that is
opened from a disk may load scripts and nothing else.
"""

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from deepprism_jax.files import write_text
from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderKL


def text_of(model: AutoencoderKL, name: str) -> str:
    """Return the script with a model's options and weights, in float32.

    Raises:
        ValueError: the page cannot run such a model.
    """
    options: dict[str, Any] = dict(model.options)
    plain = options["downsample_padding"] == "both" and not options["multipliers"]
    if options["conv"] != "deepprism" or not plain or options["image_channels"] != 3:
        raise ValueError(
            "the page runs KL autoencoders of colour images, of conv='deepprism' and "
            "one width at every level; give one"
        )
    tensors = {
        key: {
            "shape": list(value.shape),
            "base64": base64.b64encode(np.asarray(value, "<f4").tobytes()).decode(),
        }
        for key, value in values_of(model).items()
    }
    content = {"name": name, "options": options, "tensors": tensors}
    return f'"use strict";\nconst MODEL = {json.dumps(content)};\n'


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="name of a model in the package, export or run")
    model = parser.parse_args().model
    output = Path(__file__).with_name("model.js")
    try:
        loaded = AutoencoderKL.from_pretrained(model)
        write_text(output, text_of(loaded, Path(model).name))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

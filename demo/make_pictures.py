"""Writes the pictures to try, `python demo/make_pictures.py`: three of scikit-image's.

They become `pictures.js`, addresses with the picture inside: what a page that is opened
from a disk loads from a file, it may show and not read.
"""

import base64
import io
import json
from pathlib import Path

import skimage
from PIL import Image, ImageOps

from deepprism_jax.files import write_text

NAMES = ("astronaut", "chelsea", "coffee")  # public domain, CC0, CC0
SIDE = 256


def address(name: str) -> str:
    """Return a picture, cut to a square, as a PNG in an address."""
    path = Path(skimage.__file__).parent / "data" / f"{name}.png"
    picture = ImageOps.fit(Image.open(path).convert("RGB"), (SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    content = json.dumps({name: address(name) for name in NAMES}, indent=0)
    text = f'"use strict";\nconst PICTURES = {content};\n'
    write_text(Path(__file__).with_name("pictures.js"), text)

"""What features of a set of images depend on: of which images, and by which network."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureSource:
    """Two sets of features can be compared if they agree in the last three fields."""

    data: str
    """Name or folder of the data set."""
    split: str
    image_size: tuple[int, int]
    """Height and width of the images, before the network's own resizing."""
    resize: str
    """How the network brings images to its size, in words."""
    network: str
    weights: str
    """Fingerprint of the network's parameters."""

    @property
    def slug(self) -> str:
        """A file name that says most of it, and ends in a digest of all of it."""
        height, width = self.image_size
        words = (self.data, self.split, f"{height}x{width}", self.network)
        readable = "-".join(re.sub(r"[^A-Za-z0-9]+", "_", w).strip("_") for w in words)
        # Digests of subclasses are of these fields alone.
        names = [field.name for field in dataclasses.fields(FeatureSource)]
        text = json.dumps([getattr(self, name) for name in names])
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        return f"{readable[-80:]}-{digest}"


def disagreement(
    one: FeatureSource, network: str, weights: str, resize: str
) -> str | None:
    """Return in words why features of that source are of another kind, or None."""
    for name, value, other in (
        ("network", one.network, network),
        ("weights", one.weights, weights),
        ("resize", one.resize, resize),
    ):
        if value != other:
            return f"{name} {value!r}, but here it is {other!r}"
    return None

"""A feature network that costs nothing: some pixels of an image, and their sums."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from deepprism_jax.evaluation import networks
from deepprism_jax.evaluation.networks import INCEPTION_METRICS, Distribution
from deepprism_jax.image_features import ImageFeatures

FEATURES, CLASSES = 12, 6


@dataclass(frozen=True)
class Corner:
    name: str = "corner"
    resize: str = "none"

    def shapes(self):
        kernel = jax.ShapeDtypeStruct((FEATURES, CLASSES), jnp.float32)
        return {"fc": {"kernel": kernel}}

    def apply(self, params, images):
        pool = images[:, :2, :2].reshape(len(images), FEATURES) / 128.0
        return ImageFeatures(pool, pool @ params["fc"]["kernel"])


PARAMS = {"fc": {"kernel": jnp.arange(72.0).reshape(FEATURES, CLASSES) % 5 - 2}}


def distribution(key="inception", metrics=INCEPTION_METRICS, fingerprint="0" * 16):
    return Distribution(key, Corner(key), PARAMS, fingerprint, dict(metrics))


def be_inception(monkeypatch, tmp_path):
    """Let it be what the store holds as `inception`, and keep features apart."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(networks, "INCEPTION", Corner("Inception"))
    monkeypatch.setattr(networks, "load_inception", lambda path: PARAMS)
    monkeypatch.setattr(
        networks.store,
        "find",
        lambda name: Path(name) if name == "inception" else None,
    )
    monkeypatch.setattr(networks.store, "fingerprint", lambda path: "f" * 16)
    monkeypatch.setattr(networks.store, "facts", lambda path: {"checked": "sha256"})

"""Reference statistics of a set of images, in one file to reuse and to share.

The keys `mu` and `sigma` are those of pytorch-fid and its kin: they read files from
here, and theirs are read here.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
from jaxtyping import Float

from deepprism_jax.metrics.array_file import DamagedError, read_arrays, write_arrays
from deepprism_jax.metrics.feature_source import FeatureSource, disagreement
from deepprism_jax.metrics.gaussian import Statistics


@dataclass(frozen=True)
class Provenance(FeatureSource):
    """Where statistics come from."""

    images: int
    version: str
    """Version of the package that wrote them."""


@dataclass(frozen=True)
class Reference:
    """Statistics, and what else a file holds."""

    statistics: Statistics
    features: Float[np.ndarray, "n d"] | None = None
    """For KID, precision and recall."""
    logits: Float[np.ndarray, "n k"] | None = None
    """For the inception score."""
    provenance: Provenance | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the figures must know."""


def check_free(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse to lose a file: to be called before the work that leads to `save`.

    Raises:
        FileExistsError: the file is there, and not to be overwritten.
        ValueError: the name does not end in .npz.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(
            f"reference {path} must be named .npz, as other tools ask for it"
        )
    if Path(path).exists() and not overwrite:
        raise FileExistsError(
            f"reference {path} exists; choose another name, or delete it first"
        )


def save_reference(
    path: str | Path, reference: Reference, *, overwrite: bool = False
) -> None:
    """Write a reference whole or not at all.

    Raises:
        FileExistsError: the file is there, and not to be overwritten.
        ValueError: the name does not end in .npz.
        OSError: it cannot be written; what was there before is intact.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    arrays: dict[str, np.ndarray] = {
        "mu": np.asarray(reference.statistics.mean, np.float64),
        "sigma": np.asarray(reference.statistics.covariance, np.float64),
    }
    for name in ("features", "logits"):
        rows = getattr(reference, name)
        if rows is not None:
            arrays[name] = np.asarray(rows, np.float32)
    if reference.provenance is not None:
        arrays["provenance"] = np.array(json.dumps(asdict(reference.provenance)))
    write_arrays(path, arrays)


def load_reference(
    path: str | Path, *, network: str, weights: str, resize: str
) -> Reference:
    """Read a reference that is to be compared with features of the given kind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds no statistics, or is of another network, other
            weights or another resizing.
    """
    path = Path(path)
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no reference {str(path)!r}; make one from real images with "
            "eval.py --save-reference"
        ) from None
    except DamagedError as error:
        raise ValueError(
            f"cannot read reference {path}: {error}; it must be an .npz of plain "
            "arrays, make or download it again"
        ) from error
    provenance = _provenance(path, arrays)
    if provenance is not None:
        problem = disagreement(provenance, network, weights, resize)
        if problem:
            raise ValueError(
                f"reference {path} was made with {problem}; make it again, or choose "
                "what it was made with"
            )
    statistics = _statistics(path, arrays, provenance)
    features, logits = (_rows(path, arrays, name) for name in ("features", "logits"))
    if features is not None and features.shape[1] != statistics.mean.size:
        raise _damaged(path, f"features {features.shape} do not go with its mu")
    notes = ()
    if provenance is None:
        notes = (
            f"reference {path} does not say of which images, by which network and with "
            "which resizing it was made: that it fits is not checked",
        )
    return Reference(statistics, features, logits, provenance, notes)


def _provenance(path: Path, arrays: dict[str, np.ndarray]) -> Provenance | None:
    if "provenance" not in arrays:
        return None
    try:
        facts = json.loads(str(arrays["provenance"]))
        facts["image_size"] = tuple(facts["image_size"])
        return Provenance(**facts)
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"its provenance is not understood ({error})") from error


def _statistics(
    path: Path, arrays: dict[str, np.ndarray], provenance: Provenance | None
) -> Statistics:
    if not {"mu", "sigma"} <= arrays.keys():
        raise _damaged(path, f"it has no mu and sigma, but {', '.join(arrays) or '-'}")
    mean, covariance = arrays["mu"], arrays["sigma"]
    if mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
        raise _damaged(path, f"mu {mean.shape} and sigma {covariance.shape} disagree")
    if not (_is_finite(mean) and _is_finite(covariance)):
        raise _damaged(path, "mu or sigma is not made of finite numbers")
    scale = np.abs(covariance).max(initial=0.0)
    asymmetry = np.abs(covariance - covariance.T).max(initial=0.0)
    if asymmetry > 1e-3 * scale:
        raise _damaged(path, "sigma is no covariance: it is not symmetric")
    least = scipy.linalg.eigvalsh(covariance, subset_by_index=(0, 0))[0]
    # Rounding to float32 makes eigenvalues that are zero a little negative.
    if least < -1e-5 * max(scale, np.trace(covariance)):
        raise _damaged(path, "sigma is no covariance: it has negative eigenvalues")
    return Statistics(
        mean.astype(np.float64),
        covariance.astype(np.float64),
        provenance.images if provenance else None,
    )


def _rows(path: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    rows = arrays.get(name)
    if rows is None:
        return None
    if rows.ndim != 2 or not _is_finite(rows):
        raise _damaged(path, f"{name} {rows.shape} are not rows of finite numbers")
    return rows.astype(np.float32, copy=False)


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _damaged(path: Path, problem: str) -> ValueError:
    return ValueError(
        f"reference {path} is of no use: {problem}; make or download it again"
    )

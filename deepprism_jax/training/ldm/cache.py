"""Latents on disk: made once for an autoencoder and its images, then mapped.

FOLDER/part-00000-of-00001.mean.npy    float16 [flips, n, h, w, z]
                          .std.npy     the same, of KL autoencoders
                          .label.npy   int32 [n]; -1 is no class, -2 an unreadable image
                          .index.npy   int64 [n], places of the images in their source
                          .json        what made it, and sums; written last

Every process writes the images that it reads, in one or more parts, and maps all.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepprism_jax.files import replacing, write_text

UNREADABLE = -2
"""Label of an image that could not be read, of which there is no latent."""

FIRST = "first_row"
"""Where a piece begins among the rows of its process, in a record."""

_OF_A_PART = {FIRST, "images", "numbers", "sum", "sum_of_squares"}
"""What records of one cache may differ in."""

Encode = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Images, uint8 [b, h, w, c], to means and standard deviations [b, h', w', z], float32;
None for the latter where latents are certain."""


class Part(NamedTuple):
    """The share of one process, or a piece of it."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        return f"part-{self.index:05}-of-{self.count:05}"


@dataclass(frozen=True)
class LatentCache:
    """The latents in a folder, of which all parts are there.

    Args:
        folder: where they are.
        parts: how many there are.
    """

    folder: Path
    parts: int

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """What is said of each part."""
        return [
            read_record(self.folder, Part(p, self.parts)) for p in range(self.parts)
        ]

    def is_complete(self) -> bool:
        """Return whether all parts are there, of one making, with all their arrays.

        Raises:
            ValueError: a record is damaged.
        """
        try:
            records = self.records
        except FileNotFoundError:
            return False
        made = [
            {name: x for name, x in record.items() if name not in _OF_A_PART}
            for record in records
        ]
        return all(one == made[0] for one in made) and all(
            _is_whole(self.folder, Part(p, self.parts), record)
            for p, record in enumerate(records)
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of all images, part after part."""
        return np.concatenate(self._arrays("label"))

    @cached_property
    def readable(self) -> np.ndarray:
        """Rows of the images of which there are latents, in the order of the source.

        So the order is the same however many processes have encoded them.
        """
        order = np.argsort(np.concatenate(self._arrays("index")), kind="stable")
        return order[self.labels[order] != UNREADABLE]

    @property
    def flips(self) -> int:
        """1, or 2 where mirror images were encoded too."""
        return self.records[0]["flips"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.readable)

    def rows(
        self, images: Sequence[int] | np.ndarray, mirrored: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return `mean`, `std` and `label` of images, below `len`, as a batch."""
        rows = self.readable[np.asarray(images)]
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        found = {
            name: np.stack(
                [
                    arrays[part][int(mirror), row - self._starts[part]]
                    for part, row, mirror in zip(parts, rows, mirrored, strict=True)
                ]
            )
            for name, arrays in self._mapped.items()
        }
        return {**found, "label": self.labels[rows]}

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of all latents, by channel: float32 [z].

        Of what is drawn: the variance of the posteriors counts.
        """
        count = sum(record["numbers"] for record in self.records)
        total, squares = (
            np.sum([record[name] for record in self.records], axis=0)
            for name in ("sum", "sum_of_squares")
        )
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 1e-12)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    @cached_property
    def _starts(self) -> np.ndarray:
        sizes = [len(x) for x in self._arrays("label")]
        return np.cumsum([0, *sizes[:-1]])

    @cached_property
    def _mapped(self) -> dict[str, list[np.ndarray]]:
        """Arrays of the latents by name; without `std` where latents are certain."""
        names = ("mean", "std") if self.records[0]["std"] else ("mean",)
        return {name: self._arrays(name) for name in names}

    def _arrays(self, name: str) -> list[np.ndarray]:
        parts = (Part(p, self.parts) for p in range(self.parts))
        return [_read_array(self.folder, part, name) for part in parts]


def read_record(folder: Path, part: Part) -> dict[str, Any]:
    """Return what is said of a part.

    Raises:
        FileNotFoundError: it is not there, or not complete.
        ValueError: it is damaged.
    """
    path = folder / f"{part.name}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has no {path.name}") from None
    except ValueError:
        raise ValueError(f"{path} is damaged: delete {folder}") from None


def is_written(folder: Path, part: Part, facts: Mapping[str, Any]) -> bool:
    """Return whether a part is there, with all of its arrays, and of such facts."""
    try:
        record = read_record(folder, part)
    except (OSError, ValueError):
        return False
    alike = all(record.get(name) == value for name, value in facts.items())
    return alike and _is_whole(folder, part, record)


def _is_whole(folder: Path, part: Part, record: Mapping[str, Any]) -> bool:
    """Return whether a part has all arrays of its record, with all of their rows."""
    rows = (record["images"],)
    latents = (record["flips"], *rows)
    shapes = {"mean": latents, "label": rows, "index": rows}
    shapes |= {"std": latents} if record["std"] else {}
    try:
        return all(
            _read_array(folder, part, name).shape[: len(shape)] == shape
            for name, shape in shapes.items()
        )
    except (OSError, ValueError, EOFError):  # one is lost, cut off or empty
        return False


def _read_array(folder: Path, part: Part, name: str) -> np.ndarray:
    """Return an array of a part, mapped."""
    return np.load(folder / f"{part.name}.{name}.npy", mmap_mode="r")


def write_part(
    folder: Path,
    part: Part,
    facts: Mapping[str, Any],
    batches: Iterable[Mapping[str, np.ndarray]],
    images: int,
    encode: Encode,
    *,
    flips: int,
    proceed: Callable[[int], None] = lambda done: None,
) -> None:
    """Encode images and write them; the record comes last.

    Args:
        folder: made where there is none.
        part: which this is.
        facts: what makes the latents what they are, for the record.
        batches: as `data.eval_batches` gives them, of this process.
        images: how many rows they have together.
        encode: the autoencoder.
        flips: 2 to encode mirror images as well, else 1.
        proceed: told how many rows are done; what it raises leaves nothing behind.

    Raises:
        OSError: they cannot be written.
        ValueError: the autoencoder gives no numbers.
    """
    labels, places = np.full(images, UNREADABLE, np.int32), np.zeros(images, np.int64)
    done, numbers, total, squares = 0, 0, np.zeros(()), np.zeros(())
    outs: dict[str, np.ndarray] = {}
    # An old record must not stand beside new arrays.
    (folder / f"{part.name}.json").unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:

        def part_file(name: str) -> Path:
            return stack.enter_context(replacing(folder / f"{part.name}.{name}.npy"))

        for batch in batches:
            proceed(done)
            mask = batch["mask"]
            rows = slice(done, done + len(mask))
            labels[rows] = np.where(mask, batch.get("label", -1), UNREADABLE)
            places[rows] = batch["index"]
            for flip in range(flips):
                pixels = batch["image"][:, :, ::-1] if flip else batch["image"]
                moments = dict(zip(("mean", "std"), encode(pixels), strict=True))
                for name, x in moments.items():
                    if x is None:
                        continue
                    if name not in outs:
                        shape = (flips, images, *x.shape[1:])
                        outs[name] = _allocated(part_file(name), shape)
                    outs[name][flip, rows] = x
                mean, std = (
                    None if x is None else x[mask].astype(np.float64)
                    for x in moments.values()
                )
                assert mean is not None
                numbers += mean.size // mean.shape[-1]
                total = total + mean.sum((0, 1, 2))
                squares = squares + (mean**2).sum((0, 1, 2))
                if std is not None:
                    squares = squares + (std**2).sum((0, 1, 2))
            if not np.isfinite(squares).all():
                raise ValueError(
                    "the autoencoder gives latents that are no numbers; train it again"
                )
            done = rows.stop
        for name, array in (("label", labels), ("index", places)):
            with part_file(name).open("wb") as file:
                np.save(file, array)
        for out in outs.values():
            out.flush()  # pyright: ignore[reportAttributeAccessIssue]
    record = {
        **facts,
        "images": images,
        "flips": flips,
        "std": "std" in outs,
        "numbers": numbers,
        "sum": total.tolist(),
        "sum_of_squares": squares.tolist(),
    }
    write_text(folder / f"{part.name}.json", json.dumps(record, indent=2) + "\n")


def _allocated(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a new file's float16 array, mapped; the disk has room for all of it.

    Raises:
        OSError: it has not. Found out later, that would kill the process.
    """
    out = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return out

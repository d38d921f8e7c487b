"""A file from the network, from where an earlier attempt has stopped."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

Watch = Callable[[int], None]
"""Is told how many bytes there are."""

_PIECE = 1 << 18


class DownloadError(Exception):
    """The file could not be had; one line says why."""


def download(
    address: str,
    path: Path,
    size: int,
    *,
    watch: Watch | None = None,
    timeout: float = 30.0,
) -> None:
    """Complete the file at `path` from the network.

    What is there already is kept and only the rest is asked for, but a server that
    sends the whole file is obeyed. What has come is kept if the connection breaks.

    Args:
        address: URL of the file.
        path: file to make or complete.
        size: bytes that the whole file has.
        watch: is told the progress.
        timeout: seconds without any byte after which the connection counts as broken.

    Raises:
        DownloadError: the server is not reached, refuses, sends another number of
            bytes, or the bytes cannot be written.
    """
    there = path.stat().st_size if path.exists() else 0
    if there > size:
        path.unlink()
        there = 0
    if there == size:
        return
    headers = {"User-Agent": "deepprism_jax"}
    if there:
        headers["Range"] = f"bytes={there}-"
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if not _goes_on(response, there):
                there = 0
            announced = response.headers.get("Content-Length")
            if announced is not None and there + int(announced) != size:
                raise DownloadError(
                    f"{address} has {there + int(announced)} bytes, not {size}"
                )
            there = _save(response, path, there, size, watch)
    except urllib.error.HTTPError as error:
        with error:
            answer = f"{error.code} {error.reason}"
        raise DownloadError(f"{address} is answered with {answer}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise DownloadError(f"{address} cannot be read: {text}") from error
    if there < size:
        raise DownloadError(
            f"{address} broke off after {there} of {size} bytes; the same command goes "
            "on from there"
        )


def _goes_on(response: Any, there: int) -> bool:
    """Whether the server sends only what is missing."""
    begins = (response.headers.get("Content-Range") or "").startswith(f"bytes {there}-")
    return bool(there) and response.status == 206 and begins


def _save(
    response: Any,
    path: Path,
    there: int,
    size: int,
    watch: Watch | None,
) -> int:
    """Append to the first `there` bytes, and return how many there are then."""
    try:
        file = path.open("ab" if there else "wb")
    except OSError as error:
        raise _cannot_write(path, error) from error
    with file:
        while piece := response.read(_PIECE):
            there += len(piece)
            if there > size:
                raise DownloadError(f"the server sends more than {size} bytes")
            try:
                file.write(piece)
                file.flush()
            except OSError as error:
                raise _cannot_write(path, error) from error
            if watch is not None:
                watch(there)
    return there


def _cannot_write(path: Path, error: OSError) -> DownloadError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DownloadError(f"cannot write {path}: {reason}")

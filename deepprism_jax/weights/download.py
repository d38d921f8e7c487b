"""A file from the network, from where an earlier attempt has stopped."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
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
    sends the whole file is obeyed. What has come is kept if the connection breaks and
    the server had announced the right number of bytes: less may be any page.

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
            announced = _announced(response, there)
            if announced not in (None, size):
                raise DownloadError(f"{address} has {announced} bytes, not {size}")
            pieces = _pieces(response, address, there, size)
            if announced:
                _save(pieces, path, there, watch)
            else:
                _save_whole(pieces, path, watch)
    except urllib.error.HTTPError as error:
        with error:
            answer = f"{error.code} {error.reason}"
        raise DownloadError(f"{address} is answered with {answer}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{address} cannot be read: {_reason(error)}") from error


def _goes_on(response: Any, there: int) -> bool:
    """Whether the server sends only what is missing."""
    begins = (response.headers.get("Content-Range") or "").startswith(f"bytes {there}-")
    return bool(there) and response.status == 206 and begins


def _announced(response: Any, there: int) -> int | None:
    """Return the bytes that the whole file has, if the server says so."""
    if length := response.headers.get("Content-Length"):
        return there + int(length)
    if there:  # as in "bytes 1000-4999/5000"
        last = response.headers["Content-Range"].partition("/")[0].rpartition("-")[2]
        return int(last) + 1
    return None


def _pieces(response: Any, address: str, there: int, size: int) -> Iterator[bytes]:
    """Yield what the server sends, if it is what is missing."""
    reason = ""
    while there < size:
        try:
            piece = response.read1(_PIECE)  # what has come, without waiting for more
        except (OSError, http.client.HTTPException) as error:
            piece, reason = b"", f" ({_reason(error)})"
        if not piece:
            raise DownloadError(
                f"{address} broke off after {there} of {size} bytes{reason}; the same "
                "command tries again"
            )
        there += len(piece)
        if there > size:
            raise DownloadError(f"{address} has more than {size} bytes")
        yield piece


def _save_whole(pieces: Iterator[bytes], path: Path, watch: Watch | None) -> None:
    """Write all or nothing, and until then leave what there is."""
    scratch = path.with_name(f"{path.name}.whole")
    try:
        _save(pieces, scratch, 0, watch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _save(pieces: Iterator[bytes], path: Path, there: int, watch: Watch | None) -> None:
    """Append to the first `there` bytes."""
    try:
        with path.open("ab" if there else "wb") as file:
            for piece in pieces:
                file.write(piece)
                there += len(piece)
                if watch is not None:
                    watch(there)
    except OSError as error:
        raise DownloadError(f"cannot write {path}: {_reason(error)}") from error


def _reason(error: Any) -> str:
    """Return what is behind an error, without its number."""
    error = getattr(error, "reason", error)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

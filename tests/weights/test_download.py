"""What a network can do to a download, and that what has come is not lost."""

import threading
from pathlib import Path

import numpy as np
import pytest
from local_server import serving

from deepprism_jax.weights.download import DownloadError, download

CONTENT = np.random.default_rng(0).bytes(5_000_000)
SIZE = len(CONTENT)


def fails(address, path, size=SIZE):
    with pytest.raises(DownloadError) as error:
        download(address, path, size, timeout=5.0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_file(tmp_path):
    told = []
    with serving(CONTENT) as server:
        download(server.address, tmp_path / "net", SIZE, watch=told.append)
    assert (tmp_path / "net").read_bytes() == CONTENT
    assert server.requests == [("/net.pth", None)]
    assert told == sorted(told)
    assert told[-1] == SIZE
    assert len(told) > 3


def test_a_broken_connection_is_gone_on_from(tmp_path):
    path = tmp_path / "net"
    with serving(CONTENT, cut=2_000_000) as server:
        text = fails(server.address, path)
        assert f"broke off after 2000000 of {SIZE} bytes; the same command" in text
        assert path.read_bytes() == CONTENT[:2_000_000]
        fails(server.address, path)
        assert path.read_bytes() == CONTENT[:4_000_000]
        download(server.address, path, SIZE)
    assert path.read_bytes() == CONTENT
    ranges = [asked for _, asked in server.requests]
    assert ranges == [None, "bytes=2000000-", "bytes=4000000-"]


def test_a_server_that_sends_everything_again_is_obeyed(tmp_path):
    path = tmp_path / "net"
    path.write_bytes(b"x" * 1_000_000)
    with serving(CONTENT, ranges=False) as server:
        download(server.address, path, SIZE)
    assert server.requests == [("/net.pth", "bytes=1000000-")]
    assert path.read_bytes() == CONTENT


def test_nothing_is_asked_for_what_is_there(tmp_path):
    (tmp_path / "net").write_bytes(CONTENT)
    with serving(None) as server:
        download(server.address, tmp_path / "net", SIZE)
    assert server.requests == []


def test_more_than_there_can_be_is_begun_anew(tmp_path):
    (tmp_path / "net").write_bytes(CONTENT + b"x")
    with serving(CONTENT) as server:
        download(server.address, tmp_path / "net", SIZE)
    assert (tmp_path / "net").read_bytes() == CONTENT


def test_another_length_is_refused_before_the_first_byte(tmp_path):
    with serving(b"<html>sign in first</html>") as server:
        text = fails(server.address, tmp_path / "net")
    assert f"has 26 bytes, not {SIZE}" in text
    assert not (tmp_path / "net").exists()


def test_a_connection_that_falls_silent_is_gone_on_from(tmp_path):
    path, event = tmp_path / "net", threading.Event()
    with serving(CONTENT, cut=2_000_000, hold=event) as server:
        with pytest.raises(DownloadError) as error:
            download(server.address, path, SIZE, timeout=0.2)
        event.set()
    assert "broke off after 2000000 of 5000000 bytes (timed out)" in str(error.value)
    assert path.read_bytes() == CONTENT[:2_000_000]


def test_a_stream_without_end_is_stopped_and_not_kept(tmp_path):
    with serving(CONTENT, length=False) as server:
        text = fails(server.address, tmp_path / "net", 1_000_000)
        assert "more than 1000000 bytes" in text
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", [b"<html>sign in first</html>", b"x" * (SIZE + 1)])
def test_a_page_of_unknown_length_leaves_what_there_was(tmp_path, page):
    """As a network says that wants a password first, whatever it is asked for."""
    path = tmp_path / "net"
    path.write_bytes(CONTENT[:1_000_000])
    with serving(page, length=False, ranges=False) as server:
        fails(server.address, path)
    assert path.read_bytes() == CONTENT[:1_000_000]
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with serving(page, length=False) as server:
        fails(server.address, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("there", [0, 1_000_000])
def test_the_right_file_of_unknown_length_is_taken(tmp_path, there, ranges):
    path = tmp_path / "net"
    path.write_bytes(CONTENT[:there])
    with serving(CONTENT, length=False, ranges=ranges) as server:
        download(server.address, path, SIZE)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_a_rest_of_unknown_length_is_gone_on_from(tmp_path):
    """The range that the server names is an announcement too."""
    path = tmp_path / "net"
    path.write_bytes(CONTENT[:1_000_000])
    with serving(CONTENT, length=False, cut=2_000_000) as server:
        fails(server.address, path)
        assert path.read_bytes() == CONTENT[:3_000_000]
        text = fails(server.address, path, SIZE + 1)
    assert f"has {SIZE} bytes, not {SIZE + 1}" in text
    assert path.read_bytes() == CONTENT[:3_000_000]


def test_no_such_file(tmp_path):
    with serving(None) as server:
        assert "404 Not Found" in fails(server.address, tmp_path / "net")
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:9/net.pth", "refused"),
        ("no address", "unknown url type"),
    ],
)
def test_no_network(tmp_path, address, says):
    text = fails(address, tmp_path / "net")
    assert address in text
    assert says in text


def test_a_silent_server_is_not_waited_for_forever(tmp_path):
    event = threading.Event()
    with serving(CONTENT, pause=event) as server:
        with pytest.raises(DownloadError, match="timed out"):
            download(server.address, tmp_path / "net", SIZE, timeout=0.1)
        event.set()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with serving(CONTENT) as server:
        text = fails(server.address, tmp_path / "none" / "net")
    assert text == f"cannot write {tmp_path}/none/net: No such file or directory"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk")
def test_a_full_disk_is_named():
    with serving(CONTENT) as server:
        text = fails(server.address, Path("/dev/full"))
    assert text == "cannot write /dev/full: No space left on device"

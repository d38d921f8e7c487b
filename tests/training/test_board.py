import socket

import pytest
from fake_board import boards, each

from deepprism_jax.training.board import open_board


def test_each_process_reads_what_all_have_written():
    first, second = boards(2)
    first.post("beat", 1)
    assert second.read("beat") == {0: 1}
    second.post("beat", {"a": [None, "b"]})
    first.post("beat", 2)
    assert first.read("beat") == {0: 2, 1: {"a": [None, "b"]}}
    assert first.read("other") == {}


def test_topics_with_a_common_beginning_are_kept_apart():
    (alone,) = boards(1)
    alone.post("stop", 1)
    alone.post("stop later", 2)
    assert alone.read("stop") == {0: 1}


def test_gathering_waits_for_all():
    gathered = each(lambda board: board.gather("sum", board.index + 1), boards(3))
    assert gathered == [[1, 2, 3]] * 3


def test_gathering_ends_where_patience_does():
    with pytest.raises(TimeoutError, match="sum"):
        boards(2)[0].gather("sum", 1, patience=0.05)


def test_processes_are_called_by_number_and_host():
    first, _ = boards(2)
    assert first.name() == f"process 0 ({socket.gethostname()})"
    assert first.name(1) == f"process 1 ({socket.gethostname()})"


def test_a_process_alone_has_no_board():
    assert open_board() is None

import pytest
from fake_board import boards

from deepprism_jax.training.stragglers import LINES, Stragglers


def lines(count, waits):
    """What process 0 says at each line of the log; a wait is of the last process."""
    each = [Stragglers(board) for board in boards(count)]
    said = []
    for step, wait in enumerate(waits):
        for index, one in enumerate(each):
            line = one.report(step, wait if index == count - 1 else 0.01)
            assert line == "" or index == 0
            said += [line] if index == 0 else []
        for one in reversed(each):
            one.check()
        each[0].check()  # what has been compared is not compared again
    return said


@pytest.mark.parametrize("count", [2, 4])
def test_a_process_that_is_late_again_and_again_is_named_once(count):
    said = lines(count, [0.9] * 8)
    assert [bool(line) for line in said] == [n == LINES for n in range(8)]
    assert f"process {count - 1} (" in said[LINES]
    assert "waits for its data 90% of the time" in said[LINES]


def test_a_process_that_is_late_now_and_then_is_not_named():
    assert not any(lines(4, [0.9, 0.9, 0.0] * 4))


def test_a_process_that_is_a_little_late_is_not_named():
    assert not any(lines(4, [0.15] * 8))


def test_a_process_alone_is_never_late():
    alone = Stragglers(None)
    assert [alone.report(step, 1.0) for step in range(9)] == [""] * 9
    alone.check()

import os
import signal
import threading
import time

import pytest
from fake_board import boards, each
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprism_jax.training import signals
from deepprism_jax.training.signals import StopSignals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_is_a_request_and_not_an_end(number, code):
    with StopSignals() as stop:
        assert stop.received is None
        assert not stop.agreed()
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert stop.agreed()
        assert stop.exit_code == code


def test_a_second_interrupt_ends_at_once():
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_does_not_cut_the_save_short():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exit_code == 143


def test_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def run_until_stopped(board, pause, told):
    """Call `agreed` as a loop does, with a signal at some call; return the stop."""
    stop, done = StopSignals(board), threading.Event()

    def poll():
        while not done.wait(0.002):
            stop.poll()

    thread = threading.Thread(target=poll)
    thread.start()
    calls = 0
    while not stop.agreed():
        calls += 1
        if calls in told:
            stop._handle(told[calls], None)
        time.sleep(pause)
    assert stop.agreed()  # from then on, always
    done.set()
    thread.join()
    return calls, stop.exit_code


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.sampled_from([0.001, 0.003, 0.01]), min_size=2, max_size=4),
    st.integers(1, 20),
    st.data(),
)
def test_processes_stop_at_the_same_call_whoever_is_told(pauses, at, data):
    one = data.draw(st.integers(0, len(pauses) - 1))
    told = [{at: signal.SIGTERM} if n == one else {} for n in range(len(pauses))]
    results = each(run_until_stopped, boards(len(pauses)), pauses, told)
    assert len(set(results)) == 1
    calls, code = results[0]
    assert calls >= at
    assert code == 143


def test_processes_that_are_told_different_things_end_with_one_code():
    told = [{3: signal.SIGINT}, {4: signal.SIGTERM}]
    results = each(run_until_stopped, boards(2), [0.001, 0.001], told)
    assert len(set(results)) == 1


def test_a_first_interrupt_is_heeded_though_another_process_was_told_before():
    first, second = boards(2)
    here, there = StopSignals(first), StopSignals(second)
    there._handle(signal.SIGTERM, None)
    for stop in (there, here, there, here):
        stop.poll()
    assert here.received == signal.SIGTERM
    here._handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        here._handle(signal.SIGINT, None)


def test_a_call_waits_while_the_others_are_asked():
    first, second = boards(2)
    stop = StopSignals(first)
    assert not stop.agreed()
    stop._handle(signal.SIGTERM, None)
    stop.poll()
    waiting = threading.Thread(target=stop.agreed)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    other = StopSignals(second)
    for _ in range(3):
        assert not other.agreed()
    other.poll()
    stop.poll()
    waiting.join(5)
    assert not waiting.is_alive()
    other.poll()
    assert other.agreed()  # the fourth call, as the first process will find at its own


def test_a_second_interrupt_ends_a_process_that_python_cannot(monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_AT_ONCE", 0.0)
    monkeypatch.setattr(signals, "end", lambda *arguments: ended.append(arguments))
    with StopSignals() as stop:
        stop._raw[1].send(bytes([signal.SIGINT, signal.SIGINT]))
        stop.poll()
        time.sleep(0.01)
        stop.poll()
    assert ended[0][0] is None
    assert ended[0][2] == 130


def test_the_wakeup_of_before_comes_back():
    with StopSignals():
        assert signal.set_wakeup_fd(-1) >= 0
    assert signal.set_wakeup_fd(-1) == -1

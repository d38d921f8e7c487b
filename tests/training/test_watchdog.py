import threading
import time

import pytest
from fake_board import boards

from deepprism_jax.training import ending, watchdog
from deepprism_jax.training.agreement import AgreedRefusal
from deepprism_jax.training.ending import BEAT, ENDED, fail
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.watchdog import Watchdog


class Ended(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def ends(monkeypatch, capsys):
    """What this process would have ended with: exit codes."""
    codes = []

    def leave(code):
        codes.append(code)
        raise Ended

    monkeypatch.setattr(ending.os, "_exit", leave)
    monkeypatch.setattr(ending, "_ends", threading.Semaphore(9))
    monkeypatch.setattr(ending, "GRACE", 0.1)
    monkeypatch.setattr(ending, "PERIOD", 0.01)
    return codes


def look(dog):
    for check in dog.checks:
        check()


def test_what_takes_too_long_ends_the_run(ends, capsys):
    dog = Watchdog(timeout=0.02)
    for step in (1, 2):
        look(dog)
        dog.begin("step", step)
        time.sleep(0.05)
        if step == 1:
            look(dog)  # the first one may be compiling
    with pytest.raises(Ended):
        look(dog)
    assert ends == [1]
    error = capsys.readouterr().err
    assert "step 2 takes longer than train.step_timeout=0.02 s" in error
    assert error.startswith("process 0 (")


def test_the_first_batch_is_compiled_by_nobody(ends):
    dog = Watchdog(timeout=0.01)
    dog.begin("the batch of step", 1, compiled=False)
    time.sleep(0.02)
    with pytest.raises(Ended):
        look(dog)


def test_the_first_step_has_an_hour_and_no_more(ends, monkeypatch):
    monkeypatch.setattr(watchdog, "COMPILING", 0.0)
    dog = Watchdog(timeout=0.01)
    dog.begin("step", 1)
    time.sleep(0.02)
    with pytest.raises(Ended):
        look(dog)


def test_a_look_that_fails_is_said_once_and_the_others_go_on(caplog, monkeypatch):
    monkeypatch.setattr(watchdog, "PERIOD", 0.005)
    looks = []

    def fails():
        looks.append(1)
        raise TypeError("no such thing")

    dog = Watchdog()
    dog.checks.append(fails)
    with dog.watching():
        while len(looks) < 3:
            time.sleep(0.005)
    assert caplog.text.count("no such thing") == 1


def test_without_a_limit_nothing_is_too_long(ends):
    dog = Watchdog(timeout=0.0)
    for step in (1, 2):
        dog.begin("step", step)
    time.sleep(0.02)
    look(dog)


def test_where_one_hangs_the_others_tell_what_they_were_at(ends, capsys):
    first, second = boards(2)
    second.post(ENDED, {"line": "", "code": 1, "doing": "the batch of step 7"})
    dog = Watchdog(first, timeout=0.01)
    dog.begin("step", 6)
    dog.begin("step", 7)
    time.sleep(0.02)
    with pytest.raises(Ended):
        look(dog)
    assert f"{second.name()} was at the batch of step 7" in capsys.readouterr().err


def test_the_end_of_another_ends_this_one_and_says_why(ends, capsys, monkeypatch):
    monkeypatch.setattr(watchdog, "_GRACE", 0.0)
    first, second = boards(2)
    dog = Watchdog(second)
    look(dog)
    first.post(ENDED, {"line": "process 0 failed: no", "code": 130, "doing": ""})
    look(dog)
    time.sleep(0.01)
    with pytest.raises(Ended):
        look(dog)
    assert ends == [1]
    assert capsys.readouterr().err == "process 0 failed: no\n"
    assert second.read(ENDED)[1]["line"] == "process 0 failed: no"


def test_a_refusal_of_another_keeps_its_code(ends, monkeypatch):
    monkeypatch.setattr(watchdog, "_GRACE", -1.0)
    first, second = boards(2)
    first.post(ENDED, {"line": "error: no", "code": 2, "doing": ""})
    with pytest.raises(Ended):
        look(Watchdog(second))
    assert ends == [2]


@pytest.mark.parametrize("once", [True, False])
def test_process_0_ends_the_run_where_one_is_silent(ends, capsys, monkeypatch, once):
    monkeypatch.setattr(watchdog, "LOST_AFTER", 0.05)
    first, second, third = boards(3)
    dog = Watchdog(first)
    for beat in range(3):
        if once:
            second.post(BEAT, beat)
        for _ in range(4):  # signs of life are looked for at every fourth look
            look(dog)
    time.sleep(0.1)
    third.post(BEAT, 0)
    with pytest.raises(Ended):
        any(look(dog) for _ in range(4))
    assert ends == [1]
    assert capsys.readouterr().err.startswith(f"lost {second.name()}; the run is ended")


def test_the_thread_looks_while_it_watches():
    looked = threading.Event()
    dog = Watchdog()
    dog.checks.append(looked.set)
    with dog.watching():
        assert looked.wait(5)
    assert not any(t.name == "watchdog" for t in threading.enumerate())


def test_alone_errors_are_as_ever(ends):
    with pytest.raises(KeyError):
        with Watchdog().watching():
            raise KeyError
    assert ends == []


def test_an_error_of_one_process_ends_it_at_once(ends, capsys):
    board, _ = boards(2)
    with pytest.raises(Ended):
        with Watchdog(board).guarding():
            raise KeyError("no such file")
    assert ends == [1]
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith(f"{board.name()} failed: KeyError: 'no such file'\n")


def test_an_agreed_refusal_passes(ends):
    board, _ = boards(2)
    with pytest.raises(AgreedRefusal):
        with Watchdog(board).guarding():
            raise AgreedRefusal("no")
    assert ends == []


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (PreflightError("no data", "no disk"), 2, "error: {name}: no data\nerror: "),
        (KeyboardInterrupt(), 130, "{name} was interrupted; nothing was saved"),
    ],
)
def test_refusals_and_interrupts_keep_their_codes(ends, capsys, error, code, says):
    _, board = boards(2)
    with pytest.raises(Ended):
        fail(board, error)
    assert ends == [code]
    assert capsys.readouterr().err.startswith(says.format(name=board.name()))


def test_an_error_of_the_devices_is_put_down_to_the_process_that_is_gone(ends, capsys):
    first, second = boards(2)
    second.post(BEAT, 3)
    with pytest.raises(Ended):
        fail(first, ValueError("UNKNOWN: Gloo AllGather failed"))
    assert ends == [1]
    assert capsys.readouterr().err.startswith(f"lost {second.name()};")


def test_an_error_of_the_devices_where_all_live_is_told_as_it_is(ends, capsys):
    first, second = boards(2)
    stop = threading.Event()

    def live():
        for beat in range(1000):
            second.post(BEAT, beat)
            if stop.wait(0.01):
                return

    thread = threading.Thread(target=live)
    thread.start()
    time.sleep(0.05)
    with pytest.raises(Ended):
        fail(first, ValueError("RESOURCE_EXHAUSTED: out of memory"))
    stop.set()
    thread.join()
    assert "failed: ValueError: RESOURCE_EXHAUSTED" in capsys.readouterr().err

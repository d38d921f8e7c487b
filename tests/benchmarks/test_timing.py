import time

import pytest


@pytest.fixture
def timing(benchmark_module):
    return benchmark_module("timing")


def test_subjects_take_turns_until_their_budget_is_spent(timing):
    calls = []
    medians = timing.interleave(
        {name: lambda name=name: calls.append(name) for name in "ab"},
        timing.Timing(seconds=0.0, bursts=5, budget=0.0),
    )
    # One call each that is not counted, then three bursts of one call.
    assert "".join(calls) == "ab" + "ab" * 3
    assert set(medians) == {"a", "b"}
    assert min(medians.values()) >= 0


def test_each_clock_counts_what_it_says(timing):
    wall, processor = (
        timing.interleave(
            {"sleep": lambda: time.sleep(0.02)},
            timing.Timing(seconds=0.0, bursts=3, clock=clock),
        )["sleep"]
        for clock in ("wall", "processor")
    )
    assert wall >= 20.0
    assert processor < 15.0


@pytest.mark.parametrize(("cores", "clock"), [(1, "processor"), (2, "wall")])
def test_the_clock_by_itself(timing, monkeypatch, cores, clock):
    monkeypatch.setattr(timing, "cores", lambda: cores)
    assert timing.Timing().clock_used == clock

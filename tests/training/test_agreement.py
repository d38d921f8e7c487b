from pathlib import Path

import pytest
from fake_board import boards, each

from deepprism_jax.training import agreement
from deepprism_jax.training.agreement import (
    AgreedRefusal,
    check_shared,
    common_facts,
    refusing_together,
)
from deepprism_jax.training.config import Config, TrainConfig
from deepprism_jax.training.preflight import PreflightError


def refuse(board, problems, facts=()):
    with refusing_together(board, "test") as common:
        common |= dict(facts)
        if problems:
            raise PreflightError(*problems)
    return "goes on"


def test_all_go_on_where_none_refuses():
    facts = [{"seed": 1}] * 2
    assert each(refuse, boards(2), [(), ()], facts) == ["goes on"] * 2


def test_a_refusal_of_one_is_one_of_all_and_names_it():
    first, second = boards(2)
    results = each(refuse, [first, second], [(), ("no data", "no disk")])
    for result in results:
        assert isinstance(result, AgreedRefusal)
        name = second.name()
        assert result.problems == (f"{name}: no data", f"{name}: no disk")


def test_what_all_refuse_names_none_and_is_said_once():
    results = each(refuse, boards(3), [("no data",)] * 3)
    assert [result.problems for result in results] == [("no data",)] * 3


def test_processes_that_were_started_otherwise_are_refused():
    results = each(refuse, boards(2), [(), ()], [{"seed": 0}, {"seed": 1}])
    for result in results:
        assert isinstance(result, AgreedRefusal)
        assert "seed is 1 on process 1" in str(result)
        assert "0 on process 0" in str(result)


def test_a_refusal_does_not_wait_for_those_that_are_elsewhere(monkeypatch):
    monkeypatch.setattr(agreement, "_PATIENCE", 0.1)
    with pytest.raises(PreflightError, match="no data") as caught:
        refuse(boards(2)[0], ["no data"])
    assert not isinstance(caught.value, AgreedRefusal)


def test_a_process_alone_refuses_as_ever():
    assert refuse(None, []) == "goes on"
    with pytest.raises(PreflightError) as caught:
        refuse(None, ["no data"])
    assert not isinstance(caught.value, AgreedRefusal)


def test_every_field_of_the_config_is_compared(tmp_path):
    one, other = (
        common_facts(Config(train=TrainConfig(seed=seed)), tmp_path, False)
        for seed in (0, 1)
    )
    assert {name for name in one if one[name] != other[name]} == {"train.seed"}
    assert one["newest checkpoint"] is None
    assert one["--workdir"] == str(tmp_path)


def test_a_directory_that_only_process_0_sees_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(agreement, "_VISIBLE", 0.1)
    monkeypatch.setattr(agreement.jax, "process_index", lambda: 1)
    with pytest.raises(PreflightError, match="storage that all processes share"):
        check_shared(tmp_path)
    monkeypatch.setattr(agreement.jax, "process_index", lambda: 0)
    check_shared(Path("/no/where"))

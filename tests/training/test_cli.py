import dataclasses
import inspect
import re
import shlex
from types import ModuleType

import pytest

from deepprism_jax.evaluation.options import Options
from deepprism_jax.training import cli
from deepprism_jax.training.config import Config, ModelConfig, TrainConfig
from deepprism_jax.training.preflight import PreflightError


def experiment(note, **changes):
    module = ModuleType("experiment")
    module.__doc__ = note
    module.get_config = lambda: Config(**changes)
    return module


EXPERIMENTS = {
    "quickstart": experiment("Learn on photographs.\n\nFour minutes on two cores."),
    "cifar10_deepprism": experiment("CIFAR-10.", train=TrainConfig(steps=7)),
    "cifar10_dense": experiment("The baseline.", model=ModelConfig(conv="dense")),
}


def parse(*argv):
    return cli.parse(argv, EXPERIMENTS)


def refused(*argv):
    with pytest.raises(PreflightError) as caught:
        parse(*argv)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    assert "│" not in problem
    return problem


def test_a_config_alone():
    run = parse("cifar10_deepprism")
    assert run.config == EXPERIMENTS["cifar10_deepprism"].get_config()
    assert run.workdir == "runs/cifar10_deepprism"
    assert (run.resume, run.dry_run, run.distributed) == (False, False, False)


def test_overrides_of_every_type():
    run = parse(
        *shlex.split(
            "quickstart --model.conv dense --train.steps 3 --data.image-size 64 48 "
            "--optimizer.learning-rate 1e-4 --model.no-attention --data.path '/a b' "
            "--workdir elsewhere --resume --dry-run --train.batch_size=8"
        )
    )
    assert run.config.model.conv == "dense"
    assert run.config.model.attention is False
    assert run.config.train.steps == 3
    assert run.config.train.batch_size == 8
    assert run.config.data.image_size == (64, 48)
    assert run.config.data.path == "/a b"
    assert run.config.optimizer.learning_rate == 1e-4
    assert (run.workdir, run.resume, run.dry_run) == ("elsewhere", True, True)


def test_an_override_leaves_the_rest_of_the_config():
    assert parse("cifar10_dense", "--model.width", "64").config.model == ModelConfig(
        conv="dense", width=64
    )


@pytest.mark.parametrize(
    ("argv", "patterns"),
    [
        (["quickstrat"], ["unknown config 'quickstrat'", "meant quickstart"]),
        (["cifar10"], ["cifar10_deepprism or cifar10_dense|cifar10_dense or"]),
        (["zzz"], ["choose one of quickstart, cifar10_deepprism, cifar10_dense"]),
        ([], ["no CONFIG is named"]),
        (["--resume", "quickstart"], ["--resume came before CONFIG"]),
        (
            ["quickstart", "--model.widht", "3"],
            ["--model.widht", "meant --model.width"],
        ),
        (
            ["quickstart", "--train.stepz", "3", "--model.wdth=-4", "--zzz"],
            [
                r"--train.stepz; perhaps you meant --train.steps .*; "
                r"unknown option --model.wdth; perhaps you meant --model.width; "
                r"unknown option --zzz$"
            ],
        ),
        (["quickstart", "--data.imagesize", "3", "-4"], ["imagesize; .*image-size"]),
        (["quickstart", "--dry-rum"], ["--dry-rum", "meant --dry-run"]),
        (["quickstart", "--model.width", "abc"], ["--model.width", "'abc'", "int"]),
        (["quickstart", "--train.keep", "2.5"], ["--train.keep", "'2.5'"]),
        (["quickstart", "--optimizer.b1", "x"], ["--optimizer.b1", "'x'", "float"]),
        (["quickstart", "--model.conv", "dens"], ["'dens'", "'dense'", "'deepprism'"]),
        (["quickstart", "--data.image-size", "32"], ["--data.image-size"]),
        (["quickstart", "--model.width"], ["--model.width"]),
        (["quickstart", "stray"], ["stray"]),
    ],
)
def test_mistakes_are_one_line_and_name_the_remedy(argv, patterns):
    problem = refused(*argv)
    for pattern in patterns:
        assert re.search(pattern, problem), problem


def helped(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code in (None, 0)
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_lists_configs_by_their_first_line(capsys):
    text = helped(capsys, "--help")
    assert "quickstart Learn on photographs." in text
    assert "Four minutes" not in text
    assert "cifar10_dense The baseline." in text


def test_help_of_a_config_explains_every_field_with_its_default(capsys):
    text = helped(capsys, "cifar10_deepprism", "--help")
    assert "CIFAR-10." in text
    assert "Optimizer steps of the whole run. (default: 7)" in text
    for group, dataclass in (("model", ModelConfig), ("train", TrainConfig)):
        for field in dataclass.__dataclass_fields__:
            assert f"--{group}.{field.replace('_', '-')}" in text
    assert "Go on from the newest checkpoint" in text
    assert "default: runs/cifar10_deepprism" in text


def test_help_of_a_field_is_one_line():
    """The line breaks of a longer docstring would stay in it."""
    kinds = [cli.Run, Options, *(field.type for field in dataclasses.fields(Config))]
    for kind in kinds:
        assert re.findall(r'^    """.*[^"\n]$', inspect.getsource(kind), re.M) == []


BOX = """\
╭─ Unrecognized options ───────────────╮
│ Unrecognized options: --model.widht, │
│ 3                                    │
│ ──────────────────────────────────── │
│ Perhaps you meant:                   │
│     --model.width INT                │
│         Channels C. (default: 256)   │
│ ──────────────────────────────────── │
│ For full helptext, run --help        │
╰──────────────────────────────────────╯
"""

PLAIN = """\
 Unrecognized options
 ---------------------------------------
  Unrecognized options: --model.widht, 3
  --------------------------------------
  Perhaps you meant:
      --model.width INT
          Channels C. (default: 256)
  --------------------------------------
  For full helptext, run --help
"""


@pytest.mark.parametrize("drawing", [BOX, PLAIN, f"\x1b[31m{BOX}\x1b[0m"])
def test_a_box_is_one_line_whatever_it_is_drawn_with(drawing):
    assert cli.one_line(drawing) == (
        "unknown option --model.widht; perhaps you meant --model.width"
    )


def test_a_message_without_a_box_is_passed_on():
    assert cli.one_line("plain words") == "plain words"
    assert cli.one_line("") == "the command line was not understood"


def test_report_prints_one_line_a_problem(capsys):
    assert cli.report(PreflightError("first", "second")) == 2
    assert capsys.readouterr().err == "error: first\nerror: second\n"

"""Plans for slices of TPUs: what is read, what is refused, one compiled."""

import dataclasses
import importlib.util
import json
import re
from contextlib import nullcontext

import jax
import pytest
from made_up_plan import TOO_LARGE, a_plan
from rich.console import Console

from configs import CONFIGS
from deepprism_jax.analysis import __main__ as program
from deepprism_jax.analysis import plan_command, plan_topology
from deepprism_jax.analysis.plan import make_plan
from deepprism_jax.analysis.plan_program import (
    Collective,
    Memory,
    array_bytes,
    collectives,
    exceeded,
)
from deepprism_jax.analysis.plan_report import plan_table, plan_title, size, write_json
from deepprism_jax.analysis.plan_sweep import changed
from deepprism_jax.analysis.plan_topology import parse_slice
from deepprism_jax.training.config import Config, ModelConfig
from deepprism_jax.training.preflight import PreflightError

needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="the compiler for GPUs is not installed (the extra cuda)",
)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the compiler for TPUs, is not installed (the extra tpu)",
)

# As libtpu 0.0.42.1 writes them, for a slice of v5e, shortened.
PROGRAM = """\
HloModule jit__step, is_scheduled=true
%fused (p: f32[64]) -> f32[64] {
  ROOT %copy.1 = f32[64]{0:T(128)} copy(%p)
}
ENTRY %main (a: f32[1]) -> f32[1] {
  %all-reduce.181 = (f32[1]{0:T(128)}, f32[3,3,3,1,1]{1,0,4,3,2:T(4,128)S(1)}, \
/*index=5*/f32[64]{0:T(128)S(1)}) all-reduce(%bitcast.237, %pad.17, %bitcast.2), \
channel_id=1, replica_groups=[1,16]<=[16], to_apply=%region_0.all-reduce_sum
  %all-reduce.7 = bf16[8,128]{1,0:T(8,128)(2,1)} all-reduce(%fusion.4), channel_id=1
  %all-gather-start = (f32[4]{0}, f32[64]{0}) all-gather-start(%p.2), dimensions={0}
  %all-gather-done = f32[64]{0} all-gather-done(%all-gather-start)
  %permute = (s8[5]{0}, s8[5]{0}, u32[], u32[]) collective-permute-start(%p.3)
  %permute.1 = s8[5]{0} collective-permute-done(%permute)
  ROOT %bitcast.9 = f32[1]{0} bitcast(%get-tuple-element.all-reduce)
}
"""


def test_collectives_are_counted_with_the_bytes_of_their_results():
    assert collectives(PROGRAM) == [
        Collective("all-reduce", 2, 4 * (1 + 27 + 64) + 2 * 8 * 128),
        Collective("all-gather", 1, 4 * 64),
        Collective("collective-permute", 1, 5),
    ]


def test_a_collective_beside_other_work_is_one_however_many_pieces_that_has():
    piece = (
        "  %all-gather.{0} = f32[16,4]{{1,0}} all-gather(%p.{0}), channel_id=1, "
        'dimensions={{0}}, frontend_attributes={{chain_id="{1}"}}, metadata={{}}\n'
    )
    program = "".join(piece.format(n, n // 3) for n in range(6))
    assert collectives(program) == [Collective("all-gather", 2, 2 * 4 * 64)]


def test_a_program_of_one_device_has_none():
    assert collectives("ENTRY %main {\n  ROOT %a = f32[1] add(%b, %c)\n}") == []


@pytest.mark.parametrize(
    ("types", "number"),
    [
        ("f32[]", 4),
        ("pred[3]{0:T(128)}", 3),
        ("f8e4m3fn[16]", 16),
        ("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, (s64[2], u32[0]))", 28),
        ("token[]", 0),
    ],
)
def test_sizes_of_types(types, number):
    assert array_bytes(types) == number


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (200.00G) exceeds available HBM (15.75G).",
            (200 * 2**30, 15.75 * 2**30),
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.5M of "
            "256.0M hbm. Exceeded hbm capacity by 256.5M.",
            (512.5 * 2**20, 256 * 2**20),
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_what_the_compiler_says_of_too_large_a_program(message, sizes):
    assert exceeded(message) == sizes


@pytest.mark.parametrize(
    ("name", "devices"),
    [("v5e:1x1", 1), ("v5e:4x4", 16), ("v4:2x2x4", 16), ("v5p:4x4x4", 64)],
)
def test_slices_are_read(name, devices):
    slice_ = parse_slice(name)
    assert (slice_.name, slice_.devices) == (name, devices)
    assert (slice_.platform, slice_.chip) == ("tpu", name.split(":")[0])


@pytest.mark.parametrize("devices", [1, 8, 64])
def test_gpus_are_read(devices):
    slice_ = parse_slice(f"cuda:h100:{devices}")
    assert (slice_.platform, slice_.chip, slice_.devices) == ("gpu", "h100", devices)
    # 80 GB, of which JAX takes three quarters.
    assert 59 * 2**30 < slice_.memory < 60 * 2**30


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5e-16", "chips are v4, v5e, v5p, v6e"),
        ("v5e-16", "v6e, cuda:h100, cuda:a100, with the sides"),
        ("cuda:h100", "GPUs are h100, a100, with their number"),
        ("cuda:h900:8", "GPUs are h100, a100, with their number"),
        ("cuda:h100:0", "GPUs are 1 to 8, or whole hosts of 8"),
        ("cuda:h100:12", "GPUs are 1 to 8, or whole hosts of 8"),
        ("v5e", "has 2 sides, as in v5e:4x4"),
        ("v5e:4", "has 2 sides, as in v5e:4x4"),
        ("v4:4x4", "has 3 sides, as in v4:2x2x4"),
        ("v5e:0x4", "has 2 sides"),
        ("v5e:4xx4", "has 2 sides"),
        ("v6e:3x4", "must be even, as in v6e:8x8"),
    ],
)
def test_unknown_slices_are_refused_with_an_example(name, says):
    with pytest.raises(ValueError, match=f"^unknown topology '{name}': .*{says}"):
        parse_slice(name)


def refused(monkeypatch, capsys, *argv):
    """The one line on stderr of a plan that is refused with code 2."""
    monkeypatch.setattr("sys.argv", ["analysis", "plan", *argv])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("", "no CONFIG is named"),
        ("--topology v5e:4x4 quickstart", "--topology came before CONFIG"),
        ("quickstrat", "unknown config 'quickstrat'; perhaps you meant quickstart"),
        ("quickstart", "no slice is named, as in .* CONFIG --topology v5e:4x4"),
        ("quickstart --topology v9:2x2", "unknown topology 'v9:2x2'"),
        ("quickstart --topolgy v5e:4x4", "unknown option --topolgy; perhaps you meant"),
        (
            "quickstart --topology v5e:4x4 --train.batch-size 40",
            r"batch_size=40 must be divisible by 16 devices .*; choose 32 or 48",
        ),
        (
            "quickstart --topology v5e:2x2 --model.width 50",
            r"model.norm_groups=32 must divide model.width=50",
        ),
    ],
)
def test_mistakes_are_refused_in_one_line_before_any_work(
    monkeypatch, capsys, argv, says
):
    line = refused(monkeypatch, capsys, *argv.split())
    assert re.search(rf"^error: .*{says}", line)


@pytest.mark.parametrize(
    ("topology", "extra"), [("v5e:2x2", "tpu"), ("cuda:h100:8", "cuda")]
)
def test_without_the_compiler_it_says_what_to_install(
    monkeypatch, capsys, topology, extra
):
    monkeypatch.setattr(plan_topology.importlib.util, "find_spec", lambda name: None)
    line = refused(monkeypatch, capsys, "quickstart", "--topology", topology)
    assert f"pip install -e '.[{extra}]'" in line


@pytest.mark.usefixtures("with_compiler")
def test_weights_that_are_not_there_are_not_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(plan_command, "make_plan", lambda *_: a_plan())
    argv = ["imagenet256_deepprism", "--topology", "v5e:4x4"]
    assert plan_command.main(argv) == 0
    assert "64 fits, 2 images at once" in capsys.readouterr().out


@pytest.mark.slow
def test_weights_need_not_be_there(monkeypatch):
    """Of a network that is not trained the shapes suffice."""
    config = CONFIGS["imagenet256_deepprism"].get_config()
    config = changed(
        config,
        model={"width": 8, "blocks": 0, "norm_groups": 4},
        data={"image_size": (32, 32)},
        loss={"perceptual_heads": "lpips"},
        train={"batch_size": 4},
    )
    here = "deepprism_jax.analysis.plan"
    monkeypatch.setattr(f"{here}.described_devices", lambda slice_: jax.devices())
    monkeypatch.setattr(f"{here}.compiling_for", lambda platform: nullcontext())
    found = make_plan(config, parse_slice("v5e:2x2"))
    assert found.memory is not None
    # Parameters that others have trained are arguments, but no gradients.
    assert found.memory.arguments > found.parameter_bytes + 4 * 700_000
    assert found.estimate is None  # the compiler for CPUs makes none


@pytest.mark.usefixtures("with_compiler")
def test_a_folder_is_no_file_for_json(monkeypatch, capsys, tmp_path):
    line = refused(
        monkeypatch,
        capsys,
        *("quickstart", "--topology", "v5e:2x2", "--json", str(tmp_path)),
    )
    assert line == f"error: --json {tmp_path} is a folder; name a file in it"


@pytest.fixture
def with_compiler(monkeypatch):
    """Nothing is compiled, but nothing is missed either."""
    monkeypatch.setattr(plan_command, "check_compiler", lambda platform: None)


def test_a_program_may_be_too_large_and_there_as_on_gpus():
    plan = a_plan(needed=2**34 + 1)
    assert plan.memory is not None
    assert not plan.fits


def test_peak_is_the_sum_of_the_kinds():
    assert Memory(1, 20, 300, 4000).peak == 4321


def rows_of(*plans):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(plan_table(list(plans)))
    lines = capture.get().splitlines()
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells if row}


def test_table_has_a_column_for_every_batch():
    rows = rows_of(a_plan(), TOO_LARGE)
    assert rows["images a device"] == ["4", "8"]
    assert rows["images at once"] == ["2", "4"]
    assert rows["fits"] == ["yes", "NO"]
    assert rows["memory needed"] == ["1 GiB", "24 GiB"]
    assert rows["headroom"] == ["15 GiB", "-8 GiB"]
    assert rows["temporaries"] == ["256 MiB", "-"]
    assert rows["all-reduce"] == ["1 x, 4.004 KiB", "-"]
    assert rows["gradients, float32"] == ["3.906 KiB", "3.906 KiB"]
    assert rows["all-reduce / gradients"] == ["102.5%", "-"]
    assert rows["operations"] == ["2.5 G", "-"]
    assert rows["mesh: data x fsdp x channel"] == ["16 x 1 x 1"] * 2
    assert rows["step at least, estimated"] == ["20 ms", "-"]
    assert rows["images a second, estimated"] == ["3,200", "-"]


def test_title_says_what_was_done_and_what_not():
    assert plan_title("quickstart", a_plan()) == (
        "quickstart on v5e:4x4: 16 devices, 4 hosts; compiled, not run; of one device, "
        "one step:"
    )


def test_sizes_in_words():
    assert [size(n) for n in (0, 999, 1023 * 1024, 2**41)] == [
        "0 bytes",
        "999 bytes",
        "0.999 MiB",
        "2048 GiB",
    ]


def test_json_says_what_it_is(tmp_path):
    file = tmp_path / "plan.json"
    write_json(file, "quickstart", Config(), [a_plan(), TOO_LARGE])
    content = json.loads(file.read_text())
    assert "not run" in content["nature"]
    assert content["name"] == "quickstart"
    assert content["config"]["train"]["batch_size"] == Config().train.batch_size
    first, second = content["plans"]
    assert (first["fits"], second["fits"]) == (True, False)
    assert first["memory"]["temporaries"] == 2**28
    assert first["collectives"] == [{"kind": "all-reduce", "count": 1, "bytes": 4100}]
    assert second["memory"] is None
    assert list(tmp_path.iterdir()) == [file]


def test_an_impossible_config_is_refused_before_it_is_compiled():
    config = CONFIGS["quickstart"].get_config()
    with pytest.raises(PreflightError, match="batch_size=8 must be divisible by 16"):
        make_plan(config, parse_slice("v5e:4x4"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology",
    [
        pytest.param("v5e:2x2", marks=[needs_libtpu, pytest.mark.tpu]),
        pytest.param("cuda:h100:4", marks=needs_cuda),
    ],
)
def test_a_step_is_compiled_for_a_slice(monkeypatch, capsys, tmp_path, topology):
    file = tmp_path / "plan.json"
    options = (
        "--model.width 8 --model.blocks 0 --model.norm-groups 4 --model.downsamples 1 "
        "--data.image-size 8 8 --train.batch-size 8 --train.accumulation 2"
    )
    argv = ["quickstart", "--topology", topology, *options.split()]
    monkeypatch.setattr("sys.argv", ["analysis", "plan", *argv, "--json", str(file)])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 0
    assert "4 devices, 1 host; compiled, not run" in capsys.readouterr().out
    (plan,) = json.loads(file.read_text())["plans"]
    assert (plan["fits"], plan["device_batch"], plan["micro_batch"]) == (True, 2, 1)
    assert 0 < plan["needed"] == sum(plan["memory"].values()) < plan["available"]
    # The gradients and a few metrics travel, and not what a formulation makes of them.
    (reduced,) = plan["collectives"]
    assert (reduced["kind"], reduced["count"]) == ("all-reduce", 1)
    assert reduced["bytes"] == pytest.approx(plan["parameter_bytes"], rel=0.05)


@needs_libtpu
@pytest.mark.tpu
@pytest.mark.slow
def test_a_step_that_does_not_fit_is_told_by_how_much():
    config = CONFIGS["quickstart"].get_config()
    config = dataclasses.replace(
        config,
        model=ModelConfig(conv="dense", width=32, blocks=0, downsamples=0),
        data=dataclasses.replace(config.data, image_size=(512, 512)),
        train=dataclasses.replace(config.train, batch_size=2_048),
    )
    plan = make_plan(config, parse_slice("v5e:2x2"))
    assert not plan.fits
    assert plan.available == parse_slice("v5e:2x2").memory < plan.needed

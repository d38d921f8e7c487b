"""The launch script, with a gcloud that runs on this machine what is for the hosts."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "tpu_slice.py"
SLICE = ("my-slice", "--zone", "us-west4-a")
TRAIN = ("--", "quickstart", "--workdir", "gs://bucket/run")

GCLOUD = """\
#!/usr/bin/env bash
# Every call is a line of $CALLS; the hosts are the folder $HOSTS.
printf '%q ' "$@" >> "$CALLS"; echo >> "$CALLS"
case "$3 $4" in
  "queued-resources describe")
    left=$(cat "$STATES"); echo "${left%% *}"
    [ "$left" = "${left#* }" ] || echo "${left#* }" > "$STATES" ;;
  "tpu-vm scp") cp "$5" "$HOSTS/${6#*:}" ;;
  "tpu-vm ssh") for word in "$@"; do case "$word" in
    --command=*) cd "$HOSTS" && HOME=$HOSTS bash -c "${word#--command=}" || exit ;;
    esac
  done ;;
esac
"""

PYTHON = """\
#!/usr/bin/env bash
trap 'echo told; exit 143' TERM
printf '%s\\n' "$@"
echo going > going
while [ -e going ]; do sleep 0.02; done
exit 5
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A folder with gcloud in it, and one that stands for the hosts."""
    (tmp_path / "bin").mkdir()
    hosts = tmp_path / "hosts"
    there = hosts / "deepprism_jax" / ".venv" / "bin"
    there.mkdir(parents=True)
    for file, text in ((tmp_path / "bin/gcloud", GCLOUD), (there / "python", PYTHON)):
        file.write_text(text)
        file.chmod(0o755)
    (tmp_path / "calls").touch()
    (tmp_path / "states").write_text("ACTIVE\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("STATES", str(tmp_path / "states"))
    monkeypatch.setenv("HOSTS", str(hosts))
    return tmp_path


def run(*argv, code=0):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def calls(cloud):
    return [shlex.split(line) for line in (cloud / "calls").read_text().splitlines()]


def wait_for(file):
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, file
        time.sleep(0.02)


def test_a_dry_run_prints_commands_that_a_shell_reads_the_same(cloud):
    spaced = "--data.train-split=.[:90%] it's"
    printed = run("start", *SLICE, "--project", "p", "--dry-run", *TRAIN, spaced)
    assert calls(cloud) == []
    words = shlex.split(printed)
    assert words[:4] == ["gcloud", "compute", "tpus", "tpu-vm"]
    assert words[-2:] == ["--zone=us-west4-a", "--project=p"]
    subprocess.run(["bash", "-c", printed], check=True, capture_output=True)
    there = cloud / "hosts" / "deepprism_jax"
    wait_for(there / "going")
    (there / "going").unlink()
    wait_for(there / "run.log")
    told = (there / "run.log").read_text().splitlines()
    assert told[:5] == ["train.py", *TRAIN[1:], spaced]


def test_a_slice_is_asked_for_and_waited_for(cloud):
    printed = run("create", *SLICE, "--type", "v5litepod-16", "--spot")
    create, describe = calls(cloud)
    assert create[2:5] == ["queued-resources", "create", "my-slice"]
    for option in (
        "--node-id=my-slice",
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--spot",
        "--zone=us-west4-a",
    ):
        assert option in create
    assert describe[2:5] == ["queued-resources", "describe", "my-slice"]
    assert "the slice is ACTIVE" in printed


def test_a_slice_that_will_not_come_is_no_success(cloud):
    (cloud / "states").write_text("SUSPENDED\n")
    said = run("create", *SLICE, "--type", "v4-32", code=2)
    assert "error: no slice comes of a request that is SUSPENDED; delete it" in said


def wait_for_line(log, line):
    deadline = time.monotonic() + 10
    while line not in log.read_text().splitlines():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_training_starts_stops_and_goes_on(cloud):
    there = cloud / "hosts" / "deepprism_jax"
    assert "started on" in run("start", *SLICE, *TRAIN)
    wait_for(there / "going")
    again = run("start", *SLICE, *TRAIN, code=2)
    assert "error: that command ended with exit code 1" in again
    run("stop", *SLICE)
    wait_for_line(there / "run.log", "exit code 143")
    (there / "going").unlink()
    run("resume", *SLICE, *TRAIN)
    wait_for(there / "going")
    (there / "going").unlink()
    wait_for_line(there / "run.log", "exit code 5")
    log = run("logs", *SLICE, "--whole").splitlines()
    assert log.count("train.py") == 2
    assert log[log.index("exit code 143") :].count("--resume") == 1


def test_a_lost_slice_is_made_again(cloud):
    printed = run("resume", *SLICE, "--type", "v6e-64", "--dry-run", *TRAIN)
    verbs = [
        line.split()[3 if line.startswith("gcloud") else 0 : 5]
        for line in printed.splitlines()
        if line.startswith(("gcloud", "git"))
    ]
    assert verbs == [
        ["queued-resources", "delete"],
        ["queued-resources", "create"],
        ["queued-resources", "describe"],
        ["git", "-C", verbs[3][2], "archive", "--format=tar.gz"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
    ]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("create", *SLICE, "--type", "v5e"), "--type v5e is no slice"),
        (("create", *SLICE, "--type", "v9-8"), "of v4, v5litepod, v5p, v6e alone"),
        (("stop", "My Slice", "--zone", "z"), "NAME 'My Slice': letters, digits"),
        (("start", *SLICE), "after -- comes CONFIG, one of cifar10_deepprism,"),
        (("start", *SLICE, "--", "quickstrat"), "not quickstrat"),
        (("start", *SLICE, "--", "quickstart"), "give --workdir gs://BUCKET/FOLDER"),
        (
            ("start", *SLICE, "--", "quickstart", "--workdir", "runs/x"),
            "give --workdir",
        ),
        (("start", *SLICE, *TRAIN, "--resume"), "`resume` in place of `start`"),
        (("run", *SLICE), "after -- comes the command"),
        (("stop", *SLICE, "--", "now"), "stop takes nothing after --: now"),
    ],
)
def test_what_is_missing_is_refused_before_anything_is_done(cloud, argv, says):
    said = run(*argv, code=2)
    assert says in said
    assert "Traceback" not in said
    assert calls(cloud) == []


def test_a_command_runs_on_every_host_as_it_is_written(cloud):
    said = run("run", *SLICE, "--", "printf", "%s|", "a b", "it's")
    assert said.splitlines()[-1] == "a b|it's|"
    (call,) = calls(cloud)
    assert "--worker=all" in call


def test_without_gcloud_it_says_where_to_get_it(cloud, monkeypatch):
    monkeypatch.setenv("PATH", str(cloud / "hosts"))
    said = run("stop", *SLICE, code=2)
    assert "error: gcloud is not installed; see https://cloud.google.com" in said

"""The job for Slurm, with commands of Slurm that write down how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm.sbatch"
FAKE = '#!/usr/bin/env bash\nprintf "%s\\n" "${0##*/}" "$@" >> "$CALLS"\nexit "$CODE"\n'


@pytest.fixture
def submit(tmp_path):
    """Run the job where `srun` ends with a code; returns its own and the calls."""
    (tmp_path / "bin").mkdir()
    for name in ("srun", "scontrol"):
        (tmp_path / "bin" / name).write_text(FAKE)
        (tmp_path / "bin" / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(*argv, code=0):
        calls.write_text("")
        environ = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "CODE": str(code),
            "SLURM_JOB_ID": "17",
        }
        done = subprocess.run(
            ["bash", str(SCRIPT), *argv], env=environ, check=False, capture_output=True
        )
        return done.returncode, calls.read_text().splitlines()

    return run


def test_arguments_reach_the_training_as_they_are(submit, tmp_path):
    argv = ["quickstart", f"--workdir={tmp_path}/a run", "--data.train-split", ".[:9%]"]
    code, calls = submit(*argv)
    assert code == 0
    assert calls[0] == "srun"
    assert calls[2:] == [".venv/bin/python", "train.py", *argv]


def test_a_job_that_was_stopped_goes_back_and_goes_on(submit, tmp_path):
    argv = ["quickstart", "--workdir", str(tmp_path / "run")]
    code, calls = submit(*argv, code=143)
    assert code == 143
    assert calls[-3:] == ["scontrol", "requeue", "17"]
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    assert "--resume" not in submit(*argv)[1]  # it is not complete
    (tmp_path / "run" / "checkpoints" / "5" / "manifest.json").touch()
    assert submit(*argv)[1][-1] == "--resume"


def test_a_job_that_failed_stays_out_of_the_queue(submit, tmp_path):
    for failed in (1, 2):
        code, calls = submit("quickstart", "--workdir", str(tmp_path), code=failed)
        assert code == failed
        assert "scontrol" not in calls


def test_a_folder_that_nodes_may_not_share_is_refused(submit):
    assert submit("quickstart", "--workdir", "runs/x") == (2, [])
    assert submit("quickstart") == (2, [])

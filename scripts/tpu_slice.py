"""A slice of Cloud TPUs: create, install, start on every host, follow, stop, delete.

    python scripts/tpu_slice.py create NAME --zone us-west4-a --type v5litepod-16 --spot
    python scripts/tpu_slice.py install NAME --zone us-west4-a
    python scripts/tpu_slice.py start NAME --zone us-west4-a -- \
        imagenet256_deepprism --data.path /mnt/tfds --workdir gs://BUCKET/run
    python scripts/tpu_slice.py logs NAME --zone us-west4-a
    python scripts/tpu_slice.py resume NAME --zone us-west4-a -- ...as for start
    python scripts/tpu_slice.py stop NAME --zone us-west4-a
    python scripts/tpu_slice.py delete NAME --zone us-west4-a

What follows `--` goes to train.py, that of `run` to every shell. All is done
by gcloud, and `--dry-run` prints its commands instead. What is installed is the last
commit of the repository that this file is in.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
"""Software of the hosts by kind of slice, as Cloud TPU's documentation names them."""

SITES = {
    "gcloud": "https://cloud.google.com/sdk/docs/install",
    "git": "https://git-scm.com",
}
POLL_SECONDS = 30
GONE = ("FAILED", "SUSPENDED", "SUSPENDING")
"""States of a request from which no slice comes."""

_STATE = "--format=value(state.state)"
_FOLDER = "deepprism_jax"
_ARCHIVE = f"{_FOLDER}.tar.gz"
# The hosts' own Python may be too old: uv brings one that is not.
_INSTALL = f"""\
set -e
mkdir -p {_FOLDER} && tar xzf {_ARCHIVE} -C {_FOLDER} && cd {_FOLDER}
python3 -m pip install --user --quiet uv
python3 -m uv venv --quiet --allow-existing --python '>=3.11,<3.14' .venv
python3 -m uv pip install --quiet -e '.[tpu,gcs]'
echo "installed on $(hostname)\""""
_START = f"""\
cd {_FOLDER} || {{{{ echo "nothing is installed here"; exit 1; }}}}
if [ -s run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; then
  echo "a run is going on here; stop it first"; exit 1
fi
setsid bash -c {{inner}} >> run.log 2>&1 < /dev/null &
echo $! > run.pid
echo "started on $(hostname)\""""
_STOP = f"""\
cd {_FOLDER} && [ -s run.pid ] || {{ echo "no run was started here"; exit 0; }}
kill -TERM -- "-$(cat run.pid)" && echo "told to stop on $(hostname)\""""

_VERBS = {
    "create": "ask for a slice and wait until it is there",
    "install": "copy the last commit to every host, and install it",
    "run": "run the command that follows -- on every host",
    "start": "start the training that follows -- on every host",
    "resume": "the same from the newest checkpoint; with --type on a new slice",
    "stop": "end the training after the current step, with a checkpoint",
    "logs": "show what a host prints, and go on until Ctrl-C",
    "status": "show what has become of the request",
    "delete": "give the slice back",
}

Command = list[str]


class Refusal(Exception):
    """What is asked for cannot be; one line."""


@dataclass(frozen=True)
class Slice:
    """A slice and where it is."""

    name: str
    """Also that of the request for it."""
    zone: str
    project: str = ""
    """gcloud's own if empty."""

    def gcloud(self, group: str, verb: str, *rest: str) -> Command:
        """A command of gcloud about this slice."""
        where = [f"--zone={self.zone}"]
        if self.project:
            where.append(f"--project={self.project}")
        return ["gcloud", "compute", "tpus", group, verb, *rest, *where]

    def ssh(self, script: str, worker: str = "all") -> Command:
        """A command that runs a script on its hosts."""
        rest = (self.name, f"--worker={worker}", f"--command={script}")
        return self.gcloud("tpu-vm", "ssh", *rest)


def create(here: Slice, kind: str, runtime: str, spot: bool) -> Iterator[Command]:
    """Ask for a slice and wait until it is there.

    Args:
        here: the slice.
        kind: kind and size as Cloud TPU names them, v5litepod-16.
        runtime: software of its hosts; empty for that of its kind.
        spot: it may be taken away when others need it.
    """
    name, _, size = kind.partition("-")
    if not size.isdecimal():
        raise Refusal(f"--type {kind} is no slice; give kind and size, as v5litepod-16")
    if not runtime and name not in RUNTIMES:
        raise Refusal(
            f"--type {kind}: the software of its hosts is known of "
            f"{', '.join(RUNTIMES)} alone; give --runtime"
        )
    options = [
        here.name,
        f"--node-id={here.name}",
        f"--accelerator-type={kind}",
        f"--runtime-version={runtime or RUNTIMES[name]}",
    ]
    if spot:
        options.append("--spot")
    yield here.gcloud("queued-resources", "create", *options)
    yield here.gcloud("queued-resources", "describe", here.name, _STATE)


def install(here: Slice) -> Iterator[Command]:
    """Copy the last commit to every host, and install it there."""
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder) / _ARCHIVE)
        pack = ["archive", "--format=tar.gz", f"--output={archive}", "HEAD"]
        yield ["git", "-C", str(ROOT), *pack]
        there = f"{here.name}:{_ARCHIVE}"
        yield here.gcloud("tpu-vm", "scp", archive, there, "--worker=all")
    yield here.ssh(_INSTALL)


def start(here: Slice, train: Sequence[str]) -> Iterator[Command]:
    """Start the same training on every host, in the background."""
    # The shell outlives the signal that stops the training, and notes how it ended.
    line = shlex.join([".venv/bin/python", "train.py", *train])
    inner = f'trap : TERM INT; {line}; code=$?; rm -f run.pid; echo "exit code $code"'
    yield here.ssh(_START.format(inner=shlex.quote(inner)))


def delete(here: Slice) -> Iterator[Command]:
    """Give the slice back; what is on its hosts is lost."""
    options = (here.name, "--force", "--quiet")
    yield here.gcloud("queued-resources", "delete", *options)


def commands(words: argparse.Namespace, train: Sequence[str]) -> Iterator[Command]:
    """What to carry out for a command line.

    Raises:
        Refusal: it cannot be.
    """
    here = Slice(words.name, words.zone, words.project)
    for what, value in (("NAME", here.name), ("--zone", here.zone)):
        if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", value):
            raise Refusal(
                f"{what} {value!r}: letters, digits and dashes, in lower case"
            )
    if train and words.verb not in ("run", "start", "resume"):
        raise Refusal(f"{words.verb} takes nothing after --: {shlex.join(train)}")
    match words.verb:
        case "create":
            yield from create(here, words.type, words.runtime, words.spot)
        case "install":
            yield from install(here)
        case "run":
            if not train:
                raise Refusal("after -- comes the command to run on every host")
            yield here.ssh(shlex.join(train))
        case "start":
            check_training(train)
            yield from start(here, train)
        case "resume":
            check_training(train)
            if words.type:
                yield from delete(here)
                yield from create(here, words.type, words.runtime, words.spot)
                yield from install(here)
            yield from start(here, [*train, "--resume"])
        case "stop":
            yield here.ssh(_STOP)
        case "logs":
            how = "-n +1" if words.whole else "-F"
            yield here.ssh(f"tail {how} {_FOLDER}/run.log", words.worker)
        case "status":
            yield here.gcloud("queued-resources", "describe", here.name)
        case "delete":
            yield from delete(here)


def check_training(args: Sequence[str]) -> None:
    """Refuse what train.py would refuse on every host.

    Raises:
        Refusal: no experiment, or no place that all hosts can write to.
    """
    name, *options = args or [""]
    known = sorted(file.stem for file in (ROOT / "configs").glob("[!_]*.py"))
    if name not in known:
        raise Refusal(
            f"after -- comes CONFIG, one of {', '.join(known)}, not {name or 'nothing'}"
        )
    if "--resume" in options:
        raise Refusal("--resume belongs before --: `resume` in place of `start`")
    joined = " ".join(options)
    given = re.search(r"(?:^| )--workdir[ =](\S+)", joined)
    if given is None or not given[1].startswith(("gs://", "/")):
        raise Refusal(
            "give --workdir gs://BUCKET/FOLDER, or a folder that all hosts have "
            "mounted (/...), after --"
        )


def carry_out(commands: Iterator[Command], *, dry_run: bool) -> None:
    """Carry commands out, one after the other, or print them.

    Raises:
        Refusal: there is no gcloud, one of them failed, or the slice will not come.
    """
    for command in commands:
        print(shlex.join(command), flush=True)
        if dry_run:
            continue
        if shutil.which(command[0]) is None:
            raise Refusal(f"{command[0]} is not installed; see {SITES[command[0]]}")
        if _STATE in command:
            _wait(command)
        elif code := subprocess.run(command, check=False).returncode:
            raise Refusal(f"that command ended with exit code {code}")


def _wait(command: Command) -> None:
    said = ""
    while said != "ACTIVE":
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Refusal(f"that command ended with exit code {done.returncode}")
        state = done.stdout.strip()
        if state != said:
            print(f"the slice is {state or 'in no state'}", flush=True)
        if state in GONE:
            raise Refusal(f"no slice comes of a request that is {state}; delete it")
        if (said := state) != "ACTIVE":
            time.sleep(POLL_SECONDS)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line, but for what follows `--`."""
    usage = (__doc__ or "").partition("\n\n")
    top = argparse.ArgumentParser(
        description=usage[0],
        epilog=usage[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for verb, summary in _VERBS.items():
        one = verbs.add_parser(verb, help=summary, description=summary)
        one.add_argument("name", metavar="NAME", help="the slice")
        one.add_argument("--zone", required=True, help="zone, as us-west4-a")
        one.add_argument("--project", default="", help="gcloud's own by default")
        one.add_argument("--dry-run", action="store_true", help="print the commands")
        if verb in ("create", "resume"):
            needed, more = verb == "create", "" if verb == "create" else "create anew: "
            one.add_argument("--type", required=needed, help=f"{more}as v5litepod-16")
            one.add_argument("--runtime", default="", help="software of its hosts")
            one.add_argument("--spot", action="store_true", help="it may be taken away")
        if verb == "logs":
            one.add_argument("--worker", default="0", help="number of a host, or all")
            one.add_argument("--whole", action="store_true", help="all, and no more")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    asked = parser().parse_args(words[:at])
    try:
        carry_out(commands(asked, words[at + 1 :]), dry_run=asked.dry_run)
    except Refusal as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

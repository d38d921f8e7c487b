"""How a process learns that it is one of several, and meets the others.

By itself on the hosts of a Cloud TPU slice, and where Slurm or Open MPI has started
several; anywhere else the variables JAX_COORDINATOR_ADDRESS (host:port of process 0),
JAX_NUM_PROCESSES and JAX_PROCESS_ID say it.
"""

import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any

import jax

from deepprism_jax.training.board import open_board

START_SECONDS = 300
"""Time that all processes have to meet."""

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

_SLURM = (  # what JAX needs of it
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)

_METADATA_SECONDS = 2


def join(
    *,
    forced: bool = False,
    environ: Mapping[str, str] = os.environ,
    seconds: int | None = None,
) -> None:
    """Meet the other processes, if there are any, before the first use of a device.

    If they are not all there in time, a line says so and the process ends with the exit
    code 2: JAX itself would abort with a stack trace.

    Args:
        forced: there are several, even if nothing here says so; JAX finds them out.
        environ: variables of the environment.
        seconds: how long to wait for the others; None for START_SECONDS.

    Raises:
        ValueError: the variables say something impossible, or only half of it; or
            `forced`, and nothing says how many there are.
    """
    place = find_place(environ, forced=forced)
    if place is None:
        return
    seconds = START_SECONDS if seconds is None else seconds
    address = place.get("coordinator_address")
    if address and place.get("process_id") == 0:
        _check_port(address)
    # The service would take SIGTERM for itself; see `signals.StopSignals`.
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(seconds, _give_up, (address, seconds))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**place, initialization_timeout=seconds + 60)
    except (RuntimeError, ValueError, OSError) as error:
        if forced and not place:
            raise ValueError(
                "--distributed: nothing says how many processes there are; set "
                f"{', '.join(VARIABLES)}"
            ) from error
        raise ValueError(f"the processes cannot meet: {error}") from error
    finally:
        late.cancel()
    board = open_board()
    if board is not None and board.index > 0 and logging.lastResort:
        form = f"{board.name()}: %(message)s"
        logging.lastResort.setFormatter(logging.Formatter(form))


def meet_devices() -> None:
    """Find the devices of all processes, which waits for the others.

    Raises:
        ValueError: there are none here, or another program has them.
    """
    try:
        jax.devices()
    except RuntimeError as error:
        raise ValueError(f"no devices: {error}") from error


def find_place(environ: Mapping[str, str], *, forced: bool) -> dict[str, Any] | None:
    """Return what to tell `jax.distributed.initialize`, or None for a process alone.

    What is left out JAX takes from the cluster. Arguments and errors: see `join`.
    """
    given = {name: environ[name] for name in VARIABLES if environ.get(name)}
    if not given:
        return {} if forced or _cluster(environ) else None
    missing = [name for name in VARIABLES if name not in given]
    if missing and not _cluster(environ):
        raise ValueError(
            f"{' and '.join(given)} {_is_or_are(given)} set and "
            f"{' and '.join(missing)} {_is_or_are(missing)} not; set all three, or none"
        )
    place: dict[str, Any] = {}
    if address := given.get("JAX_COORDINATOR_ADDRESS"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(
                f"JAX_COORDINATOR_ADDRESS={address!r} must be host:port of process 0"
            )
        place["coordinator_address"] = address
    for name, argument in (
        ("JAX_NUM_PROCESSES", "num_processes"),
        ("JAX_PROCESS_ID", "process_id"),
    ):
        if name in given:
            place[argument] = _number(name, given[name])
    count, index = place.get("num_processes", 1), place.get("process_id", 0)
    if count < 1 or ("num_processes" in place and index >= count):
        raise ValueError(
            f"JAX_PROCESS_ID={index} must be below JAX_NUM_PROCESSES={count}"
        )
    return place


def _cluster(environ: Mapping[str, str]) -> bool:
    """Say whether a cluster that JAX knows has started several processes.

    Raises:
        ValueError: one has, but does not say where they meet.
    """
    slurm = all(environ.get(name) for name in _SLURM)
    if slurm and _number("SLURM_NTASKS", environ["SLURM_NTASKS"]) > 1:
        return True
    size = environ.get("OMPI_COMM_WORLD_SIZE", "1")
    if _number("OMPI_COMM_WORLD_SIZE", size) > 1:
        if "OMPI_MCA_orte_hnp_uri" in environ:
            return True
        if not all(environ.get(name) for name in VARIABLES):
            raise ValueError(
                f"Open MPI has started {size} processes but, from its version 5 on, "
                f"does not say where they meet; set {', '.join(VARIABLES)}"
            )
    return _tpu_hosts(environ) > 1


def _tpu_hosts(environ: Mapping[str, str]) -> int:
    """Return the hosts of the Cloud TPU slices that this one is of; 1 for no TPU."""
    # JAX sets this one as it is imported, where there are chips and libtpu.
    if environ.get("TPU_ML_PLATFORM") != "JAX":
        return 1
    if "tpu" not in (environ.get("JAX_PLATFORMS") or "tpu"):
        return 1
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if not hosts and not environ.get("TPU_SKIP_MDS_QUERY"):
        server = environ.get("GCE_METADATA_IP", "metadata.google.internal")
        request = urllib.request.Request(
            f"http://{server}/computeMetadata/v1/instance/attributes/"
            "worker-network-endpoints",
            headers={"Metadata-Flavor": "Google"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as answer:
                hosts = answer.read().decode()
        except OSError:  # a TPU outside of Google Cloud's own machines is one host
            return 1
    slices = environ.get("MEGASCALE_NUM_SLICES") or "1"
    return len((hosts or "").split(",")) * _number("MEGASCALE_NUM_SLICES", slices)


def _check_port(address: str) -> None:
    """Refuse a port that another program has: JAX would crash."""
    port = int(address.rpartition(":")[2])
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("::", port))
    except OSError as error:
        if error.errno in (97, 99):  # no IPv6 on this machine
            return
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS={address}: process 0 cannot open port {port} "
            f"({error.strerror}); choose another"
        ) from None


def _give_up(address: str | None, seconds: int) -> None:
    """Say that not all processes have met, and end this one."""
    where = f" at {address}" if address else ""
    said = f"the processes{where} have not all met within {seconds} s"
    remedy = "start as many as are expected, each with a number of its own"
    if address:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            said = (
                f"process 0{where} cannot be reached within {seconds} s "
                f"({error.strerror or error})"
            )
            remedy = "start it there, or correct JAX_COORDINATOR_ADDRESS"
    os.write(2, f"error: {said}; {remedy}\n".encode())
    os._exit(2)


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r} must be a whole number from 0 up")
    return int(text)


def _is_or_are(names: Any) -> str:
    return "is" if len(names) == 1 else "are"

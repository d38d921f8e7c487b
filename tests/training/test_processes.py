import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deepprism_jax.training import processes
from deepprism_jax.training.processes import find_place, join

EXPLICIT = {
    "JAX_COORDINATOR_ADDRESS": "host:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1"}
TPU = {"TPU_ML_PLATFORM": "JAX", "TPU_WORKER_HOSTNAMES": "a,b"}


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


def test_variables_say_everything():
    place = {"coordinator_address": "host:1234", "num_processes": 4, "process_id": 3}
    assert find_place(EXPLICIT, forced=False) == place
    assert find_place({**SLURM, **EXPLICIT}, forced=False) == place


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PATH": "/bin"},
        {**SLURM, "SLURM_NTASKS": "1"},
        without(SLURM, "SLURM_STEP_NODELIST"),  # a batch script, and not a step of it
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {**TPU, "TPU_WORKER_HOSTNAMES": "localhost"},
        {**TPU, "JAX_PLATFORMS": "cpu"},
        without(TPU, "TPU_ML_PLATFORM"),
    ],
)
def test_a_process_is_alone_unless_something_says_otherwise(environ):
    assert find_place(environ, forced=False) is None
    assert find_place(environ, forced=True) == {}


@pytest.mark.parametrize(
    "environ",
    [
        SLURM,
        OPEN_MPI,
        TPU,
        {**TPU, "TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
        {**TPU, "TPU_PROCESS_ADDRESSES": "a:1,b:1"},
        {**TPU, "JAX_PLATFORMS": ""},
    ],
)
def test_clusters_that_have_started_several_are_found(environ):
    assert find_place(environ, forced=False) == {}


def test_a_cluster_may_be_told_the_address():
    address = {"JAX_COORDINATOR_ADDRESS": "host:1234"}
    assert find_place({**SLURM, **address}, forced=False) == {
        "coordinator_address": "host:1234"
    }


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (
            without(EXPLICIT, "JAX_PROCESS_ID"),
            "JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES are set and JAX_PROCESS_ID "
            "is not; set all three, or none",
        ),
        ({"JAX_NUM_PROCESSES": "2"}, "and JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID"),
        ({**EXPLICIT, "JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 must be below"),
        ({**EXPLICIT, "JAX_NUM_PROCESSES": "0"}, "below JAX_NUM_PROCESSES=0"),
        ({**EXPLICIT, "JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' must be a"),
        ({**EXPLICIT, "JAX_COORDINATOR_ADDRESS": "host"}, "'host' must be host:port"),
        ({**EXPLICIT, "JAX_COORDINATOR_ADDRESS": "h:99999"}, "must be host:port"),
        (without(OPEN_MPI, "OMPI_MCA_orte_hnp_uri"), "Open MPI has started 2"),
    ],
)
def test_what_is_half_set_or_impossible_is_refused(environ, says):
    with pytest.raises(ValueError, match=r"must|set") as caught:
        find_place(environ, forced=False)
    assert says in str(caught.value)


@pytest.fixture
def metadata():
    """The address of a server like that of a Google virtual machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.headers["Metadata-Flavor"] == "Google"
            found = self.path.endswith("/attributes/worker-network-endpoints")
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(b"u:1:10.0.0.1,u:2:10.0.0.2")

        def log_message(self, *_):
            pass

    server = HTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_slice_on_google_cloud_is_known_by_its_metadata(metadata):
    environ = {"TPU_ML_PLATFORM": "JAX", "GCE_METADATA_IP": metadata}
    assert find_place(environ, forced=False) == {}
    assert find_place({**environ, "TPU_SKIP_MDS_QUERY": "1"}, forced=False) is None


def test_a_tpu_without_metadata_is_one_host():
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        address = f"localhost:{closed.getsockname()[1]}"
        environ = {"TPU_ML_PLATFORM": "JAX", "GCE_METADATA_IP": address}
        assert find_place(environ, forced=False) is None


def test_alone_nothing_is_started(monkeypatch):
    monkeypatch.setattr(processes.jax.distributed, "initialize", None)
    join(environ={})


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
        with pytest.raises(ValueError, match=f"cannot open port {port}"):
            join(environ={**EXPLICIT, **address, "JAX_PROCESS_ID": "0"})


@pytest.mark.parametrize("forced", [False, True])
def test_what_jax_cannot_find_out_is_refused(monkeypatch, forced):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(processes.jax.config, "update", lambda *_: None)
    says = "nothing says how many" if forced else "cannot meet: coordinator_address"
    with pytest.raises(ValueError, match=says):
        join(forced=forced, environ={} if forced else SLURM)


def test_those_that_do_not_meet_in_time_end_with_a_line(monkeypatch, capfd):
    gone = threading.Event()

    def end(code):
        assert code == 2
        gone.set()

    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        address = f"localhost:{closed.getsockname()[1]}"
        monkeypatch.setattr(os, "_exit", end)
        monkeypatch.setattr(processes.jax.config, "update", lambda *_: None)
        monkeypatch.setattr(
            processes.jax.distributed, "initialize", lambda **_: gone.wait(10)
        )
        join(environ={**EXPLICIT, "JAX_COORDINATOR_ADDRESS": address}, seconds=0)
    error = capfd.readouterr().err
    assert f"error: process 0 at {address} cannot be reached within 0 s" in error
    assert error.count("\n") == 1

"""A pickle describes tensors, changes nothing, and costs no more than its length."""

import io
import pickle

import pytest

from deepprism_jax.weights.state_dict import read_state_dict
from deepprism_jax.weights.torch_pickle import GLOBALS, load

NESTED = b"NN\x86" + b"q\x00h\x00\x86" * 60
"""A tuple of one tuple, twice, and so on: as a tree it has 2**60 leaves."""


def constant(value):
    return pickle.dumps(value, 2)[2:-1]


def storage(*, kind=b"X\x07\x00\x00\x00storage", dtype=b"ctorch\nFloatStorage\n", key):
    return b"(" + kind + dtype + key + constant("cpu") + constant(4) + b"tQ"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_writes_is_read(protocol):
    shared = ["a", 1, -70000, 1 << 70, 0.5, None, True, False, (), (1,), (1, 2, 3, 4)]
    described = {"x" * 300: shared, "again": [shared, {}, []], "y": {1: 2}}
    stream = io.BytesIO(pickle.dumps(described, protocol) + b"more")
    assert load(stream) == described
    assert stream.read() == b"more"


def test_a_dictionary_of_python_2_is_read():
    """It has its items as a list of lists, and its names as bytes."""
    program = (
        b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01bK\x02ee\x85R."
    )
    assert load(io.BytesIO(program)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", GLOBALS, ids=".".join)
@pytest.mark.parametrize(
    "state", [b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x01\0\0\0aK\x01s\x86"]
)
def test_a_pickle_cannot_change_what_reads_it(name, state):
    """BUILD sets attributes of any object that a pickle has got hold of."""
    target = "c{}\n{}\n".format(*name).encode()
    before = dict(getattr(GLOBALS[name], "__dict__", {}))
    load(io.BytesIO(b"\x80\x02" + target + state + b"b."))
    assert not hasattr(GLOBALS[name], "a")
    assert dict(getattr(GLOBALS[name], "__dict__", {})) == before


@pytest.mark.parametrize(
    "program",
    [
        storage(key=NESTED),
        storage(key=constant("0"), dtype=NESTED),
        storage(key=constant("0"), kind=NESTED),
        b"}" + NESTED + b"K\x01s",  # a key, to be hashed
        b"}(" + NESTED + b"K\x01u",
        b"ccollections\nOrderedDict\n]]" + NESTED + b"aK\x01aa\x85R",
        b"ctorch\nSize\n" + NESTED + b"\x85R",
        b"\x8f(" + NESTED + b"\x90",  # a set
        NESTED + b"K\x01R",
        constant("torch") + NESTED + b"\x93",  # a name
    ],
)
def test_what_is_nested_is_refused_without_going_through_it(program):
    with pytest.raises((ValueError, TypeError)) as error:
        load(io.BytesIO(b"\x80\x02" + program + b"."))
    assert len(str(error.value)) < 200


def test_a_long_list_is_not_copied_again_and_again():
    """Nor taken for the sizes of a thousand tensors."""
    numbers = b"](" + b"K\x01" * 100_000 + b"eq\x00"
    for function in (b"ctorch\nSize\n", b"ctorch._utils\n_rebuild_tensor\n"):
        program = b"\x80\x02" + numbers + (function + b"h\x00\x85R") * 1000 + b"."
        with pytest.raises((ValueError, TypeError)):
            load(io.BytesIO(program))


def test_a_long_reason_is_cut(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(b"\x80\x02c" + b"m" * 100_000 + b"\nf\n.")
    with pytest.raises(ValueError, match=r"its pickle asks for mmm.*\.\.\.$") as error:
        read_state_dict(path)
    assert len(str(error.value)) < 400 + len(str(path))

"""The pickles in torch's `.pth` files, as descriptions of tensors and nothing else.

A pickle is a program for a small stack machine that may call any function there is.
The machine here knows the instructions that a file of tensors is written with, calls
the few functions of `GLOBALS`, which only describe, and takes only names for keys. So
reading takes time and room in proportion to a pickle's length, whatever it says:
nothing that it nests is ever hashed or printed, and no long list is copied twice.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
"""Torch's classes of storages, and NumPy's names of what is in them."""


class Storage(NamedTuple):
    """A run of numbers in the file."""

    dtype: str
    key: str
    count: int
    """Numbers stored under the key."""
    start: int
    """Where the storage begins, for one that is a view of that under the key."""

    @property
    def nbytes(self) -> int:
        """Bytes stored under the key."""
        size = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return self.count * size


class Tensor(NamedTuple):
    """How a tensor lies in its storage, in numbers and not in bytes."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def load(stream: Any) -> Any:
    """Return what the pickle at this place of a binary stream describes.

    The stream is left behind the pickle. Dictionaries, of any class, become `dict`, and
    attributes that a pickle sets are left out.

    Raises:
        ValueError, TypeError, IndexError, KeyError: it is broken, or asks for more than
            descriptions of tensors.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        mark = marks.pop()
        values = stack[mark:]
        del stack[mark:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in memo:
                    raise ValueError("its pickle asks for an object that is not in it")
                stack.append(memo[argument])
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS":
                values = since_mark()
                _extend(stack[-1], values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _update(stack[-1], [key, value])
            case "SETITEMS":
                values = since_mark()
                _update(stack[-1], values)
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                stack.append(_find(module, name))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_find(module, name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(function(*_short(arguments)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "BUILD":
                stack.pop()
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case name if name in _LITERALS:
                stack.append(argument)
            case name:
                raise ValueError(
                    f"its pickle has the instruction {name}, which a file of tensors "
                    "has no need of; refused without running it"
                )
    raise ValueError("its pickle has no end")


_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}

_LITERALS = frozenset(
    {
        "BINFLOAT",
        "BININT",
        "BININT1",
        "BININT2",
        "BINSTRING",  # a name in a pickle of Python 2, as SHORT_BINSTRING
        "BINUNICODE",
        "LONG1",
        "LONG4",
        "SHORT_BINSTRING",
        "SHORT_BINUNICODE",
    }
)
"""Instructions that bring a number or a text along."""


def natural(values: Any) -> tuple[int, ...]:
    """Return the values, 32 at most, as natural numbers, or raise ValueError."""
    values = tuple(_short(values))
    if any(type(value) is not int or not 0 <= value < 1 << 62 for value in values):
        raise ValueError("a size in its pickle is not a natural number")
    return values


def _ordered_dict(items: Any = None) -> dict[str | int, Any]:
    """Return a dictionary; Python 2 gives its items as a list of lists."""
    ordered: dict[str | int, Any] = {}
    for pair in items or ():
        _update(ordered, list(_short(pair)))
    if items:
        items.clear()  # taken, so that a short pickle cannot have a long list copied
    return ordered


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild(*description: Any) -> Tensor:
    return Tensor(*description[:4])


GLOBALS: Mapping[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): natural,
    ("collections", "OrderedDict"): _ordered_dict,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}
"""All that a pickle may ask for by name, and what it gets."""


def _find(module: Any, name: Any) -> Any:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("its pickle asks for something that has no name")
    if (module, name) not in GLOBALS:
        raise ValueError(
            f"its pickle asks for {module}.{name}, which a file of tensors has no need "
            "of; refused without running it"
        )
    return GLOBALS[module, name]


def _storage(pid: Any) -> Storage:
    kind, dtype, key, _, count, *view = _short(pid)
    if kind != "storage" or dtype not in STORAGES.values() or not isinstance(key, str):
        raise ValueError("its pickle refers to something that is not a storage")
    start = view[0][1] if view and view[0] is not None else 0
    return Storage(dtype, key, *natural((count, start)))


def _short(values: Any) -> tuple[Any, ...] | list[Any]:
    if not isinstance(values, tuple | list) or len(values) > 32:
        raise ValueError("its pickle has something else where a few values belong")
    return values


def _extend(values: Any, more: list[Any]) -> None:
    if not isinstance(values, list):
        raise ValueError("its pickle appends to something that is not a list")
    values.extend(more)


def _update(items: Any, more: list[Any]) -> None:
    """Add keys and values, one after the other."""
    keys = more[::2]
    if not isinstance(items, dict) or not all(map(_is_key, keys)):
        raise ValueError("its pickle has a dictionary whose keys are not names")
    items.update(zip(keys, more[1::2], strict=True))


def _is_key(value: Any) -> bool:
    """Whether hashing and printing a value take no longer than reading it did."""
    return isinstance(value, str) or (type(value) is int and abs(value) < 1 << 64)

"""Reads the numbers of a data frame that an old pandas pickled, without running what the pickle says.

A pickle is a program: unpickling it calls whatever it names. Here its instructions are read one by one, and
nothing is called. An instruction to call something leaves a note of it, and the frame is put together from
these notes. Instructions that no frame of numbers needs are refused.

The layout is that of `BlockManager.__getstate__` in pandas 0.14.1 to 1.2, pickled by protocol 2. Newer pandas
cannot read such files.
"""

import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.raw_table import check_size
from flowbench.errors import DataError

#: Numbers that an array may hold, by the letter of its type.
_NUMBERS = "fiu"
_LAYOUT = "0.14.1"


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names, such as "numpy.dtype"."""

    text: str

    @property
    def last(self) -> str:
        return self.text.rpartition(".")[2]


@dataclass
class _Made:
    """What the pickle says is made: by calling `name` with `args`, and then given a `state`."""

    name: _Name
    args: tuple[Any, ...]
    state: Any = None


@dataclass
class _Machine:
    """The stack, its marks and the memo of an unpickler."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count:
            raise DataError("the pickle takes more off its stack than there is")
        del self.stack[-count:]
        return items


_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"}
    | {"STRING", "SHORT_BINSTRING", "BINSTRING", "UNICODE", "BINUNICODE"}
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_frame(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of the pickled frame in `path` by name, each `(n,)`, in order.

    Raises `DataError` for a pickle that is damaged, or no frame of numbers with names.
    """
    try:
        check_size(path.stat().st_size)
        return _columns(_read(path.read_bytes()))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    # The list of errors of a damaged pickle is open, as its parts may be anything.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: it is damaged, or no pickled frame of an old pandas ({error})") from error


def _read(content: bytes) -> Any:
    machine = _Machine()
    # Of bytes, unlike of a file, no more is read than there is, however much an instruction claims.
    for opcode, argument, place in pickletools.genops(content):
        if opcode.name == "STOP":
            return machine.pop(1)[0]
        if not _step(machine, opcode.name, argument):
            raise DataError(f"the pickle has the instruction {opcode.name} at byte {place}, which is refused")
    raise DataError("the pickle ends in the middle")


def _step(machine: _Machine, name: str, argument: Any) -> bool:
    """Carry out one instruction; false if it is not known here."""
    stack = machine.stack
    if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _VALUES:
        stack.append(argument)
    elif name == "GLOBAL":
        stack.append(_Name(argument.replace(" ", ".")))
    elif name == "MARK":
        machine.marks.append(len(stack))
    elif name in _TUPLES:
        stack.append(tuple(machine.pop(_TUPLES[name])))
    elif name == "TUPLE":
        stack.append(tuple(machine.pop_mark()))
    elif name == "EMPTY_TUPLE":
        stack.append(())
    elif name in ("EMPTY_LIST", "LIST"):
        stack.append(machine.pop_mark() if name == "LIST" else [])
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name in ("APPEND", "APPENDS"):
        items = machine.pop_mark() if name == "APPENDS" else machine.pop(1)
        stack[-1].extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = machine.pop_mark() if name == "SETITEMS" else machine.pop(2)
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name in ("REDUCE", "NEWOBJ"):
        what, args = machine.pop(2)
        stack.append(_Made(what, args))
    elif name == "BUILD":
        (state,) = machine.pop(1)
        stack[-1].state = state
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        machine.memo[argument] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(machine.memo[argument])
    else:
        return name == "PROTO"
    return True


def _columns(frame: Any) -> dict[str, NDArray[Any]]:
    if not (isinstance(frame, _Made) and frame.name.last == "DataFrame"):
        raise DataError("the pickle holds something else than a data frame")
    blocks = frame.state["_data"]
    if not (isinstance(blocks, _Made) and blocks.name.last == "BlockManager"):
        raise DataError("the frame has no blocks of values")
    layout = blocks.state[3][_LAYOUT]
    names = [str(name) for name in _index(layout["axes"][0])]
    if len(set(names)) < len(names):
        raise DataError("two columns of the frame have the same name")
    found: dict[str, NDArray[Any]] = {}
    for block in layout["blocks"]:
        values = _array(block["values"])
        places = _places(block["mgr_locs"], len(names))
        if values.ndim != 2 or len(values) != len(places):
            raise DataError("a block of the frame does not have a row for each of its columns")
        found |= {names[place]: column for place, column in zip(places, values, strict=True)}
    if len({len(column) for column in found.values()}) > 1 or set(found) != set(names):
        raise DataError("the blocks of the frame do not make up its columns")
    return {name: found[name] for name in names}


def _index(made: Any) -> list[Any]:
    """The labels of an index: `_new_Index(class, {"data": array, ...})`."""
    if not (isinstance(made, _Made) and made.name.last == "_new_Index" and "data" in made.args[1]):
        raise DataError("the columns of the frame have no plain index")
    return _values(made.args[1]["data"])


def _places(made: Any, count: int) -> list[int]:
    """Which columns a block holds: a slice or an array of numbers."""
    if isinstance(made, _Made) and made.name.last == "slice":
        return list(range(count))[slice(*made.args)]
    return [int(place) for place in _array(made)]


def _values(made: Any) -> list[Any]:
    """The entries of an array of objects, in order; others give their numbers."""
    _, _, kind, _, content = _state_of_array(made)
    if _type(kind).startswith("O") and isinstance(content, list):
        return content
    numbers: list[Any] = _array(made).tolist()
    return numbers


def _array(made: Any) -> NDArray[Any]:
    """An array of numbers: `_reconstruct(...)` with the state of `ndarray.__reduce__`."""
    _, shape, kind, is_fortran, content = _state_of_array(made)
    text = _type(kind)
    if text[:1] not in _NUMBERS:
        raise DataError(f"the frame holds values of type `{text}`, which are no plain numbers")
    dtype = np.dtype(kind.state[1] + text) if kind.state[1] in "<>" else np.dtype(text)
    if not isinstance(content, str) or len(content) != math.prod(shape) * dtype.itemsize:
        raise DataError("the frame has an array whose values do not fill its shape")
    values = np.frombuffer(content.encode("latin-1"), dtype)
    return values.reshape(shape, order="F" if is_fortran else "C")


def _state_of_array(made: Any) -> tuple[Any, ...]:
    if not (isinstance(made, _Made) and made.name.last == "_reconstruct" and len(made.state) == 5):
        raise DataError("the frame has something else where an array is expected")
    return tuple(made.state)


def _type(kind: Any) -> str:
    """The letter and size of a type, such as "f8"."""
    if not (isinstance(kind, _Made) and kind.name.last == "dtype"):
        raise DataError("the frame has an array without a type")
    return str(kind.args[0])

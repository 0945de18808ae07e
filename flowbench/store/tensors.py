"""Named arrays in a safetensors file, with text metadata and a checksum; never a pickle."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.store.atomic import atomic_write, file_errors
from flowbench.store.documents import from_json

Tensors = dict[str, NDArray[Any]]

#: The name of the one entry that holds all metadata: the format keeps several in no fixed order, and the
#: same content has to give the same bytes.
_ENTRY = "flowbench"
#: The format's names of the types that numpy has.
_DTYPES = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"}


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write numeric arrays of any shape and text `metadata` to `path`, atomically.

    Raises `ConfigurationError` for an array that is not numeric.
    """
    # The library stores the memory of an array as it is, so a transposed view would come back scrambled.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    entry = json.dumps({"metadata": dict(metadata), "sha256": _digest(dense, metadata)}, sort_keys=True)
    try:
        content = save(dense, {_ENTRY: entry})
    except SafetensorError as error:
        raise ConfigurationError(f"the arrays cannot be written to {path}: {error}") from error
    with atomic_write(path, verify=read_tensors) as partial:
        partial.write_bytes(content)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The arrays and the metadata in `path`.

    Raises `DamagedFileError` if the file is not whole, or was not written by `write_tensors`.
    """
    with _opened(path) as file:
        entry = _entry(file, path)
        tensors = {name: _tensor(file, name, path) for name in file.keys()}  # noqa: SIM118
    described = from_json(entry, f"the metadata of {path}")
    metadata = described.get("metadata")
    if not isinstance(metadata, dict) or described.get("sha256") != _digest(tensors, metadata):
        raise DamagedFileError(f"{path} is damaged: its contents do not match their checksum")
    return tensors, metadata


def check_tensors(path: Path) -> None:
    """Raise `DamagedFileError` if `path` is not as long as its header says, or was not written by flowbench.

    No values are read, so a changed value is not noticed.
    """
    with _opened(path) as file:
        _entry(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with file_errors("read", path):
        path.open("rb").close()
        try:
            # The library compares the length of the file with what its header says.
            with safe_open(path, framework="numpy") as file:
                yield file
        except SafetensorError as error:
            raise DamagedFileError(f"{path} is not a whole safetensors file: {error}") from error


def _entry(file: Any, path: Path) -> str:
    entry: str | None = (file.metadata() or {}).get(_ENTRY)
    if entry is None:
        raise DamagedFileError(f"{path} was not written by flowbench: it has no `{_ENTRY}` metadata")
    return entry


def _tensor(file: Any, name: str, path: Path) -> NDArray[Any]:
    # For a type that numpy does not have, the library raises whatever numpy raises.
    dtype = file.get_slice(name).get_dtype()
    if dtype not in _DTYPES:
        raise DamagedFileError(
            f"{path}: the array `{name}` is of the type {dtype}, which numpy does not have"
        )
    tensor: NDArray[Any] = file.get_tensor(name)
    return tensor


def _digest(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()

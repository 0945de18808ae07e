"""MNIST from its four IDX files, plain or packed by gzip (LeCun, Bottou, Bengio and Haffner 1998)."""

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DataError

Bytes = NDArray[np.uint8]

#: The files, each with the sha256 of its contents when unpacked.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
#: The most bytes and axes that a file may hold, and the code of unsigned bytes in its first four bytes.
LARGEST, MOST_AXES, UNSIGNED_BYTES = 2**27, 4, 8


@dataclass(frozen=True)
class Mnist:
    """Images of 28 x 28 grey values from 0 to 255, `(n, 28, 28)`, and the digits on them, `(n,)`."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


def read_mnist(folder: Path) -> Mnist:
    """The 60,000 train and 10,000 test images in `folder`.

    Raises `DataError` if a file is missing, is damaged, or is not that of MNIST.
    """
    missing = [name for name in FILES if _find(folder, name) is None]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}: put the four files of MNIST there, packed (.gz) or not, "
            f"or name their folder by `--data FOLDER`; all four: {', '.join(FILES)}"
        )
    return Mnist(*(_read_checked(folder, name, digest) for name, digest in FILES.items()))


def read_idx(path: Path) -> Bytes:
    """The array of unsigned bytes in an IDX file; a name that ends in .gz is one packed by gzip.

    The sizes in its header are checked before memory is taken. Raises `DataError` for a file that cannot be
    read, is of another kind, is cut short or goes on.
    """
    try:
        with path.open("rb") as raw:
            packed = path.suffix == ".gz"
            return _parse(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_checked(folder: Path, name: str, digest: str) -> Bytes:
    path = _find(folder, name) or folder / name
    array = read_idx(path)
    found = hashlib.sha256(_header(array.shape) + array.tobytes()).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} is not MNIST's: the sha256 of its contents is {found[:12]}... instead of "
            f"{digest[:12]}...; fetch it again"
        )
    return array


def _header(shape: tuple[int, ...]) -> bytes:
    return bytes([0, 0, UNSIGNED_BYTES, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def _parse(file: BinaryIO, path: Path) -> Bytes:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTES]) or not 1 <= magic[3] <= MOST_AXES:
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes: it begins with {magic.hex(' ') or 'nothing'}, and "
            f"should with 00 00 08 and a number of axes of at most {MOST_AXES}"
        )
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path} ends within its header; fetch it again")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    declared = math.prod(shape)
    shown = " x ".join(map(str, shape))
    if declared > LARGEST:
        raise DataError(f"{path} says that it holds {shown} bytes, more than the {LARGEST:,} that are read")
    # One more shows whether the file goes on. A file on disk gives at most what it has.
    content = file.read(declared + 1)
    if len(content) != declared:
        fault = "ends before that" if len(content) < declared else "goes on after that"
        raise DataError(f"{path} says that it holds {shown} bytes, and {fault}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)

"""Table files: their format, compression, and the table inside them."""

import bz2
import gzip
import hashlib
import lzma
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from flowbench.data.raw_table import check_size
from flowbench.errors import DataError

#: The format of a table by its suffix.
KINDS = {
    ".csv": "text",
    ".tsv": "text",
    ".tab": "text",
    ".txt": "text",
    ".dat": "text",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "arrow",
    ".arrow": "arrow",
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".xlsx": "sheet",
    ".xls": "sheet",
    ".ods": "sheet",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
#: Formats that may be compressed, and formats that may hold several tables.
_LOOSE, _SEVERAL = ("text", "json"), ("npz", "hdf5", "sheet")


def _open_zstandard(path: Path) -> BinaryIO:
    import pyarrow as pa

    return cast(BinaryIO, pa.CompressedInputStream(str(path), "zstd"))


_OPENERS: dict[str, Callable[[Path], object]] = {
    "": lambda path: path.open("rb"),
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstandard,
}


def table_suffix(path: Path) -> str | None:
    """The suffix that makes `path` a table file, such as ".csv.gz"; None if there is none."""
    name = path.name.lower()
    packed = next((suffix for suffix in _PACKED if name.endswith(suffix)), "")
    bare = name[: len(name) - len(packed)]
    for suffix, kind in KINDS.items():
        if bare.endswith(suffix) and (not packed or kind in _LOOSE):
            return suffix + packed
    return ".zip" if packed == ".zip" else None


@dataclass(frozen=True)
class TableFile:
    """The file at `path`, and the name of the table `inside` it, if it holds several."""

    path: Path
    inside: str | None = None

    @classmethod
    def of(cls, name: str | Path) -> "TableFile":
        """The file for a name: "file.h5:group/table" is the table group/table in file.h5."""
        path = Path(name)
        # Unlike Path, os.path does not raise for names that no file system allows.
        if isinstance(name, Path) or os.path.exists(path):
            return cls(path)
        before, colon, inside = name.rpartition(":")
        holder = Path(before)
        if colon and inside and table_suffix(holder) and os.path.isfile(holder):
            return cls(holder, inside)
        return cls(path)

    def __str__(self) -> str:
        return str(self.path) if self.inside is None else f"{self.path}:{self.inside}"

    @property
    def ending(self) -> str:
        """The suffix of the format, without that of the compression; empty if there is none."""
        suffix = table_suffix(self.path)
        if suffix == ".zip":
            suffix = table_suffix(Path(self._member()))
        return "." + suffix.split(".")[1] if suffix else ""

    @property
    def kind(self) -> str:
        """The format, one of the values of `KINDS`; raises `DataError` if it is unknown."""
        found = KINDS.get(self.ending)
        if found is None:
            known = ", ".join(KINDS)
            raise DataError(
                f"it is of no kind that can be read; known endings: {known}, and those of text with "
                f"{', '.join(_PACKED)} behind them"
            )
        if self.inside is not None and found not in _SEVERAL and not self._is_zip:
            raise DataError(f"it holds one table; leave out `:{self.inside}`")
        return found

    def open(self) -> BinaryIO:
        """The file, decompressed, for sequential reading."""
        if self._is_zip:
            return cast(BinaryIO, zipfile.ZipFile(self.path).open(self._member()))
        suffix = table_suffix(self.path) or ""
        packed = next((each for each in _PACKED if suffix.endswith(each)), "")
        return cast(BinaryIO, _OPENERS[packed](self.path))

    @property
    def is_packed(self) -> bool:
        """Whether the file is compressed, so that its size is not that of its contents."""
        return (table_suffix(self.path) or "").endswith(_PACKED)

    @property
    def _is_zip(self) -> bool:
        return self.path.name.lower().endswith(".zip")

    def _member(self) -> str:
        """The name of the table's file in an archive."""
        with zipfile.ZipFile(self.path) as archive:
            members = [
                member
                for member in archive.infolist()
                if not member.is_dir()
                and not os.path.basename(member.filename).startswith(".")
                and not member.filename.startswith("__MACOSX")
            ]
        tables = [member for member in members if (table_suffix(Path(member.filename)) or ".zip") != ".zip"]
        names = [member.filename for member in tables]
        # A file of plain text beside a table is probably its description.
        better = [name for name in names if not name.lower().endswith((".txt", ".dat"))]
        if self.inside is None and len(better) == 1:
            names = better
        if self.inside is not None:
            if self.inside not in names:
                raise DataError(f"the archive has no table `{self.inside}`; it has {_listed(names)}")
            names = [self.inside]
        if len(names) != 1:
            if not names:
                raise DataError(f"the archive holds no table: {_listed([each.filename for each in members])}")
            raise DataError(
                f"the archive holds {len(names)} tables, {_listed(names)}; name one, as "
                f"{self.path.name}:{names[0]}"
            )
        suffix = table_suffix(Path(names[0])) or ""
        if suffix.endswith(_PACKED) or KINDS[suffix] not in _LOOSE:
            raise DataError(f"`{names[0]}` is not read inside of an archive; unpack it")
        check_size(next(member.file_size for member in tables if member.filename == names[0]))
        return names[0]


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Raise `DataError` if the file at `path` changes within the context.

    A format's library may open a file several times, and read its bytes in any order. If the file does not
    change, all of these reads, and the hash of the file, see the same bytes.
    """
    before = _state(path)
    yield
    if _state(path) != before:
        raise DataError(f"{path}: the file changed while it was read; try again when nobody writes to it")


def _state(path: Path) -> tuple[int, ...] | None:
    """Device, inode, size and times of a file, which change with its contents; None if it cannot be read."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # reading the file reports these
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:5]) + ("..." if len(names) > 5 else "") or "nothing"


def keep_stream(stream: BinaryIO, folder: Path) -> Path:
    """Write a table from a stream of bytes to a file in `folder`, whose name is a hash of the bytes.

    The same bytes give the same file. Raises `DataError` for a table that is too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest, head, total = hashlib.sha256(), b"", 0
    descriptor, partial = tempfile.mkstemp(dir=folder, prefix=".stdin-", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            while block := stream.read(2**20):
                total += len(block)
                check_size(total)
                head = head or block
                digest.update(block)
                file.write(block)
        path = folder / f"stdin-{digest.hexdigest()[:12]}{_ending(head, Path(partial))}"
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return path


def _ending(head: bytes, path: Path) -> str:
    """The suffix for a table file that begins with `head`."""
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            return ".zip"
        if "[Content_Types].xml" in names:
            return ".xlsx"
        return ".npz" if all(name.endswith(".npy") for name in names) else ".zip"
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path) as file:
            return (".jsonl" if _is_json(file.read(1000)) else ".csv") + ".gz"
    found = next((ending for start, ending in _STARTS.items() if head.startswith(start)), ".csv")
    return ".jsonl" if found == ".csv" and _is_json(head[:1000]) else found


def _is_json(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


#: The first bytes of files of each format.
_STARTS = {
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"FEA1": ".feather",
    b"\xff\xff\xff\xff": ".arrow",
    b"\x93NUMPY": ".npy",
    b"\x89HDF": ".h5",
    b"BZh": ".csv.bz2",
    b"\xfd7zXZ": ".csv.xz",
    b"\x28\xb5\x2f\xfd": ".csv.zst",
}

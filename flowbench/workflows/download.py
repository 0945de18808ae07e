"""Downloads of large files that go on where they were interrupted."""

import contextlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowbench.data.benchmarks import BenchmarkArchive
from flowbench.errors import DataError, RunFailedError
from flowbench.store import file_errors

#: Bytes that are read at once, which a connection that breaks off may lose.
_BLOCK = 2**14
#: Seconds without a byte after which a server is given up.
_PATIENCE = 60.0

#: Hears how many bytes of how many are there; the second is None if the server does not say.
OnBytes = Callable[[int, int | None], None]


def fetch_archive(archive: BenchmarkArchive, folder: Path, on_bytes: OnBytes) -> Path:
    """The archive's file, below the `folder` of downloads; it is downloaded unless it is there.

    An interrupted download leaves `NAME.part`, and the next one goes on from there if the server can. A file
    that was put there by hand is used like a downloaded one.

    Raises `DataError` for a file with another hash than the known one, and `RunFailedError` if no server
    gives the file.
    """
    import pooch

    path = folder / archive.folder / archive.name
    with file_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with file_errors("read", path):
            found = pooch.file_hash(str(path), pooch.hashes.hash_algorithm(archive.known_hash))
        if found != archive.known_hash.partition(":")[2]:
            raise DataError(
                f"{path} is not the file that is published: its hash is {found}, and {archive.known_hash} is "
                "expected; remove it, and run the same command again"
            )
        return path
    complaints = []
    for url in archive.urls:
        download = _Download(on_bytes, path.with_name(path.name + ".part"))
        try:
            with _quiet(pooch), file_errors("write", path):
                pooch.retrieve(url, archive.known_hash, archive.name, path.parent, downloader=download)
        except _NoAnswerError as error:
            complaints.append(f"{url}: {error}")
            continue
        except ValueError as error:
            # pooch removes a file with a wrong hash, and says which hash it expected and found.
            raise DataError(
                f"{url} gave another file than the published one ({' '.join(str(error).split())}); run the "
                f"same command again, or put the right file at {path} by hand"
            ) from error
        return path
    kept = download.partial.stat().st_size if download.partial.exists() else 0
    part = f"; {kept:,} bytes are kept, and the same command goes on from there" if kept else ""
    raise RunFailedError(
        f"cannot download {archive.name}: {'; '.join(complaints)}{part}. Or download it by hand, put it at "
        f"{path}, and run the same command again"
    )


class _NoAnswerError(Exception):
    """A server that does not give the file, with the reason."""


class _Download:
    """A downloader of pooch that keeps what it got in `partial`, and asks the server for the rest alone."""

    def __init__(self, on_bytes: OnBytes, partial: Path) -> None:
        self.partial = partial
        self._on_bytes = on_bytes

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        import requests

        try:
            self._get(url)
        except requests.RequestException as error:
            raise _NoAnswerError(_reason(error)) from error
        os.replace(self.partial, output_file)

    def _get(self, url: str) -> None:
        import requests

        there = self.partial.stat().st_size if self.partial.exists() else 0
        # A packed answer has other bytes than the file, and its length and ranges are of the packed ones.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
        with requests.get(url, headers=headers, stream=True, timeout=_PATIENCE) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                # Nothing is left to send, or this is the beginning of another file: then its hash is wrong.
                return
            response.raise_for_status()
            begun = _first_byte(response) if response.status_code == requests.codes.partial_content else 0
            if begun not in (0, there):
                raise _NoAnswerError(f"it sent the bytes from {begun:,} on, and not from {there:,}")
            length = response.headers.get("Content-Length", "")
            total = begun + int(length) if length.isdecimal() else None
            with self.partial.open("ab" if begun else "wb") as file:
                for block in response.iter_content(_BLOCK):
                    file.write(block)
                    self._on_bytes(file.tell(), total)
        size = self.partial.stat().st_size
        if total is not None and size < total:
            raise _NoAnswerError(f"the connection broke off after {size:,} of {total:,} bytes")


def _first_byte(response: Any) -> int:
    """The first byte of a partial answer; -1 if it does not say."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _reason(error: Exception) -> str:
    """What went wrong, without the addresses of objects in the libraries' own words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"the server did not answer within {_PATIENCE:.0f} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "there is no connection to the server"
    return str(error)


@contextlib.contextmanager
def _quiet(pooch: Any) -> Any:
    """pooch without its own messages."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

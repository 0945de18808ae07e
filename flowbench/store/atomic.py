"""Atomic writes of files, and errors that say what to do when the system refuses."""

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from flowbench.errors import ConfigurationError, FlowbenchError, RunFailedError

#: The name of an unfinished file has this many characters of the final name, as names may not be long.
NAME_SHOWN = 40

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: What to do about an error of the system, by its number.
_ADVICE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions"),
    **dict.fromkeys(
        (errno.EAGAIN, errno.EBUSY, errno.ETXTBSY, errno.EDEADLK, errno.ENOLCK),
        "another program may hold it: try again when that is done",
    ),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
        "check the path",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "close other files, or raise the limit on open ones"),
    errno.EIO: "the disk or the network failed: the file may be whole",
}


@contextmanager
def atomic_write(path: Path, verify: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a path beside `path` to write to; when the block ends without an error, that file becomes `path`.

    The new file is flushed to the disk, checked by `verify`, which raises if something is wrong, and renamed.
    A reader therefore sees the old file or the new one, whatever happens. Raises `ConfigurationError` when
    `path` cannot be written to and `RunFailedError` when the disk is full.
    """
    partial = partial_beside(path)
    try:
        with file_errors("write", path):
            yield partial
            _sync(partial)
        if verify is not None:
            verify(partial)
        with file_errors("write", path):
            os.replace(partial, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # it was renamed, or could not even be made
            partial.unlink()


def partial_beside(path: Path) -> Path:
    """A new hidden name in the folder of `path`: on the same file system a rename is atomic."""
    return path.with_name(f".{path.name[:NAME_SHOWN]}.{secrets.token_hex(6)}.partial")


def remove_partials(folder: Path, names: Iterable[str]) -> None:
    """Remove the unfinished files that killed writers of `names` left in `folder`.

    No writer may be at work there.
    """
    with file_errors("write", folder):
        for name in names:
            for partial in folder.glob(f".{escape(name[:NAME_SHOWN])}.*.partial"):
                partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` to the disk, where the system can: a rename then outlasts a power cut."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(folder)


@contextmanager
def file_errors(action: str, path: Path) -> Iterator[None]:
    """Turn each `OSError` of the block into an error that says what to do; `action` is "read" or "write"."""
    try:
        yield
    except OSError as error:
        raise _explain(error, action, path) from error


def is_of_the_system(error: Exception) -> bool:
    """Whether an error comes from the operating system, as for a file that is locked or may not be read.

    Libraries also raise `OSError` for damage inside a file. Such an error has no `errno`.
    """
    return isinstance(error, OSError) and error.errno is not None


def _explain(error: OSError, action: str, path: Path) -> FlowbenchError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RunFailedError(
            f"cannot {action} {path}: {reason}; what was there before is unchanged. "
            "Free some space, or work in another folder"
        )
    advice = _ADVICE.get(error.errno or 0, "check the path and its permissions")
    return ConfigurationError(f"cannot {action} {path}: {reason}; {advice}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

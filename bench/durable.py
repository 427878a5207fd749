"""What makes a results folder outlast faults: names forced to the disk, room kept for last records, leftovers swept.

`baselines.checkpoint.write_atomically` writes the files themselves: all of one, or nothing.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from baselines.errors import UserError

_SPARE = ".spare"
_SPARE_BYTES = 1 << 20  # some dozens of records
_PARTS = ("records", "artifacts", "checkpoints", "features")
_PASSING = re.compile(r"\..+\.\d+\.tmp|\.run\.json\.\d+|\.arriving-[0-9a-f]+")


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a file that was renamed into it is there after a power cut as well."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system that cannot (EINVAL) keeps names in its own way
            os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(results: Path) -> None:
    """Try to write where a run will.

    Raises:
        UserError: if it cannot; found out before anything is computed.
    """
    for folder in (results, *(results / part for part in _PARTS)):
        if folder != results and not os.path.lexists(folder):
            continue
        if not is_inside(folder, results):
            raise UserError(
                f"results folder {results}: {folder.name} is a link that leads out of it; to keep results elsewhere "
                "link the whole folder, or use --results DIR"
            )
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            raise UserError(
                f"results folder {results}: cannot write in {folder} ({error.strerror or error}); expected a writable "
                "folder with free space: mend it, or choose another with --results DIR"
            ) from None


@contextmanager
def spare_room(results: Path) -> Iterator[None]:
    """Hold a little of the disk, so that what is computed when it is full can still be recorded.

    Raises:
        UserError: if there is not so much.
    """
    path = results / _SPARE
    try:
        with open(path, "wb") as file:
            file.write(os.urandom(_SPARE_BYTES))  # zeros might be kept as a hole, which holds nothing
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise UserError(
            f"results folder {results}: expected at least {_SPARE_BYTES >> 20} MiB free, got: "
            f"{error.strerror or error}; make room, or choose another with --results DIR"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def give_room(results: Path, error: OSError) -> bool:
    """Give back what `spare_room` holds, if that is what this error lacks; whether it did."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return False
    try:
        (results / _SPARE).unlink()
    except OSError:
        return False
    return True


def sweep(results: Path) -> int:
    """Delete what killed writers left half-written, and the training states of models that are finished.

    Only for who holds the folder's lock. Links are not followed. Gives how many files are gone.
    """
    gone = 0
    folders = [results, *(results / part for part in _PARTS)]
    folders += sorted((results / "checkpoints").glob("*"))
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        found = [path for path in folder.iterdir() if _PASSING.fullmatch(path.name)]
        if folder.parent.name == "checkpoints" and (folder / "model.json").is_file():
            found += [
                path for path in folder.iterdir() if re.fullmatch(r"state(-[0-9a-f]+\.safetensors|\.json)", path.name)
            ]
        for path in sorted(found, key=lambda path: path.suffix != ".json"):  # the pointer goes before what it names
            with suppress(OSError):
                path.unlink()
                gone += 1
    return gone


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, lies in a folder."""
    return path.resolve().is_relative_to(folder.resolve())

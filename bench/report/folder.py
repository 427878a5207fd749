"""Whether a report can be written where it is wanted; asked before a run that ends in one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from baselines.errors import UserError


def check_writable(out: Path) -> None:
    """Make the report's folder.

    Raises:
        UserError: if nothing can be written there.
    """
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise unwritable(out, error) from error


def put(path: Path, data: bytes) -> None:
    """Write a file of the report, or leave the one that is there as it is.

    Raises:
        OSError: if it cannot be written.
    """
    passing = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        passing.write_bytes(data)
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


def unwritable(out: Path, error: OSError) -> UserError:
    """What to tell."""
    return UserError(
        f"report: cannot write in {out}: {error.strerror or error}; choose another folder with `trilemma run --report` "
        "or `trilemma report -o`"
    )

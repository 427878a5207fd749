"""The files of records: one a writer, numbered in the order of their first lines, read back in the order that counts.

A shard's number is one above those that its writer saw, so in a folder that one machine has written, a higher number is
the later one, whatever its clock said. Its name ends at random, so that folders of several machines can be copied
together without one file in another's place. Their numbers then occur twice, and the records' own times decide.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import durable

_OWN: dict[tuple[str, int], Path] = {}
"""(folder, process id) -> the shard this process writes; the id keeps a forked child out of its parent's."""


def own(folder: Path) -> Path:
    """This process's shard in a folder of records, which is made if missing.

    Raises:
        OSError: if it cannot be made.
    """
    mine = (str(folder.resolve()), os.getpid())
    if mine in _OWN and _OWN[mine].exists():
        return _OWN[mine]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        number = 1 + max((_number(path) or 0 for path in folder.glob("*.jsonl")), default=0)
        while True:
            shard = folder / f"{number:04d}-{os.urandom(4).hex()}.jsonl"
            try:
                os.close(os.open(shard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                continue
            durable.sync_folder(folder)
            _OWN[mine] = shard
            return shard


def in_order(folder: Path) -> list[Path]:
    """All shards of a folder, those without a number last."""
    return sorted(folder.glob("*.jsonl"), key=lambda path: (_number(path) is None, _number(path) or 0, path.name))


def merged(paths: list[Path]) -> bool:
    """Whether folders of several machines were copied together: a number occurs twice."""
    return any(n > 1 for number, n in Counter(map(_number, paths)).items() if number is not None)


def _number(path: Path) -> int | None:
    found = re.match(r"(\d+)(?:-[0-9a-f]+)?$", path.stem)
    return int(found[1]) if found else None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other writer takes a number meanwhile; where the file system knows no locks, two may take the same."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

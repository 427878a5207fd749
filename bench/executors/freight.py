"""Files on their way between a run's results folder and a node that shares no disk with it.

A file goes in pieces and is put in place when all of it has arrived, tensors before the pointer that names them; so a
folder holds whole files and whole checkpoints at any moment. The run alone writes into its results
folder. No torch here.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bench import durable
from bench.job import Job
from bench.record import Record

PIECE_BYTES = 8 << 20
_STEMS = ("snapshots", "model", "state")  # in the order in which they have to arrive
_KINDS = ("artifacts", "checkpoints")  # the folders that travel


@dataclass(frozen=True)
class Piece:
    """A part of a file; `path` is relative to the results folder."""

    path: str
    data: bytes
    first: bool
    last: bool


def pieces(results: Path, paths: Iterable[str]) -> Iterator[Piece]:
    """The content of files below a results folder.

    Raises:
        OSError: if one is not there.
    """
    for path in paths:
        data = (results / path).read_bytes()
        starts = range(0, max(len(data), 1), PIECE_BYTES)
        for start in starts:
            part = data[start : start + PIECE_BYTES]
            yield Piece(path, part, start == 0, start + PIECE_BYTES >= len(data))


@dataclass
class Unpacker:
    """Puts the files of one sender together; to be closed, so that nothing half-arrived stays."""

    results: Path
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def _passing(self) -> Path:
        return self.results / f".arriving-{self.token}"

    def take(self, piece: Piece) -> None:
        """Add a piece; after the last one the file is in its place.

        Raises:
            ValueError: for a path that is not one of a results folder's.
            OSError: if it cannot be written.
        """
        parts = PurePosixPath(piece.path).parts
        if not parts or parts[0] not in _KINDS or ".." in parts:
            raise ValueError(f"expected a file below {' or '.join(_KINDS)}, got {piece.path!r}")
        with open(self._passing, "wb" if piece.first else "ab") as file:
            file.write(piece.data)
            if not piece.last:
                return
            file.flush()
            os.fsync(file.fileno())
        goal = self.results.joinpath(*parts)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if not durable.is_inside(goal.parent, self.results):
            raise ValueError(f"expected a file in {self.results}, got {piece.path!r}, which a link leads out of it")
        self._passing.replace(goal)
        durable.sync_folder(goal.parent)
        if parts[0] == "checkpoints" and goal.suffix == ".json":
            _tidy(goal)

    def close(self) -> None:
        """Forget what has not arrived in full."""
        self._passing.unlink(missing_ok=True)


def _tidy(pointer: Path) -> None:
    """Delete what a pointer that has arrived makes needless, as the trainer does."""
    named = json.loads(pointer.read_bytes())["file"]
    for old in pointer.parent.glob(f"{pointer.stem}-*.safetensors"):
        if old.name != named:
            old.unlink()
    if pointer.stem == "model":  # training is over
        for old in (pointer.with_name("state.json"), *pointer.parent.glob("state-*.safetensors")):
            old.unlink(missing_ok=True)


class Watched:
    """The checkpoints that a training writes on its node, seen as they come."""

    def __init__(self, job: Job) -> None:
        """job: with the node's own results folder."""
        self.results, self.folder = job.setup.results, job.checkpoint_folder
        self.seen = {stem: pointer for stem in _STEMS if (pointer := self._pointer(stem)) is not None}

    def news(self) -> list[Piece]:
        """What has been saved since the last look, each checkpoint whole."""
        found = {stem: pointer for stem in reversed(_STEMS) if (pointer := self._pointer(stem)) is not None}
        out: list[Piece] = []
        for stem in _STEMS:  # a model is seen after its snapshots were saved, and is sent after them
            if stem not in found or found[stem] == self.seen.get(stem):
                continue
            try:
                content = list(pieces(self.results, [self._relative(json.loads(found[stem])["file"])]))
            except FileNotFoundError:  # a newer one has taken its place meanwhile
                continue
            out += content
            out.append(Piece(self._relative(f"{stem}.json"), found[stem], True, True))
            self.seen[stem] = found[stem]
        return out

    def _pointer(self, stem: str) -> bytes | None:
        try:
            return (self.folder / f"{stem}.json").read_bytes()
        except FileNotFoundError:
            return None

    def _relative(self, name: str) -> str:
        return (self.folder / Path(name).name).relative_to(self.results).as_posix()


def needed(job: Job, previous: Record | None) -> list[str]:
    """What a job reads of the results folder: its checkpoint, its teacher's, and an earlier record's files."""
    training = job.cell.draw is None
    found = _checkpoints(job, _STEMS if training else ("model",))
    if job.teacher is not None:
        found += _checkpoints(job.teacher, ("model",))
    if previous is not None and previous.status == "ok":
        kept = (f"artifacts/{Path(artifact.path).name}" for artifact in previous.artifacts)
        found += [path for path in kept if (job.setup.results / path).is_file()]
    return found


def _checkpoints(job: Job, stems: Iterable[str]) -> list[str]:
    found = []
    for stem in stems:
        pointer = job.checkpoint_folder / f"{stem}.json"
        if pointer.is_file():
            tensors = pointer.with_name(Path(json.loads(pointer.read_bytes())["file"]).name)
            found += [path.relative_to(job.setup.results).as_posix() for path in (tensors, pointer)]
    return found


def artifacts(record: Record) -> list[str]:
    """The files that a record names."""
    return list(dict.fromkeys(artifact.path for artifact in record.artifacts))

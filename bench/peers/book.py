"""The records of races, one JSON line a race; read and written without torch and without any peer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from baselines.errors import UserError

FILE = "peers.jsonl"
SCHEMA = 1


# what a figure and a table can show, for records come from elsewhere too
_Seconds = Annotated[float, Field(ge=0, le=1e9)]
_Ratio = Annotated[float, Field(ge=1e-12, le=1e12)]
_Bytes = Annotated[int, Field(le=2**60)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Agreement(_Strict):
    """How far a peer's answer was from ours; `found` None: not a finite number, which is no agreement."""

    measure: str
    found: float | None
    allowed: float
    expected: str = ""
    holds: bool


class Row(_Strict):
    """One peer in one race.

    Attributes:
        seconds: of each round, for the whole work.
        peak_bytes: the most memory beyond what was resident before; None where the system does not tell.
        ratio, low, high: theirs / ours, the median of the rounds and its 95 % interval; above 1: ours is faster.
        error: what the peer raised, if it could not do the work; then there is nothing else.
    """

    peer: str
    package: str
    version: str | None
    note: str = ""
    seconds: tuple[_Seconds, ...] = ()
    peak_bytes: _Bytes | None = None
    ratio: _Ratio | None = None
    low: _Ratio | None = None
    high: _Ratio | None = None
    agreement: Agreement | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.error is None) == (self.ratio is None):
            raise ValueError(f"{self.peer}: expected either a ratio or an error")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.peer}: expected both ends of an interval or none")
        return self

    @property
    def verdict(self) -> Literal["faster", "slower", "even", "unclear", "failed"]:
        """What the interval says of ours beside this peer; without one that is unclear."""
        if self.ratio is None:
            return "failed"
        if self.low is None or self.high is None:
            return "unclear"
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "even"


class Race(_Strict):
    """One piece of work, timed."""

    work: str
    group: str
    ours: str
    note: str = ""
    seconds: tuple[_Seconds, ...] = Field(min_length=1)
    peak_bytes: _Bytes | None
    threads: int
    rows: tuple[Row, ...]
    provenance: dict[str, Any] = Field(default_factory=dict)
    # `schema` would hide a method of pydantic's
    version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")


def load(path: Path) -> list[Race]:
    """The races of a file, in its order; none if there is no file.

    Raises:
        UserError: naming the line that cannot be read, or that a newer program wrote.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror})") from error
    return [_race(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _race(line: bytes, place: str) -> Race:
    try:
        plain = json.loads(line)  # of bytes it wants UTF-8
        schema = plain.get("schema") if isinstance(plain, dict) else None
        newer = isinstance(schema, int) and schema > SCHEMA
        race = None if newer else Race.model_validate(plain)
    except (ValueError, RecursionError) as error:  # pydantic's, JSON's and Unicode's errors; lists in lists in lists
        raise UserError(f"{place}: expected the record of a race, got {str(error)[:300]}") from None
    if race is None:
        raise UserError(f"{place}: expected schema {SCHEMA} or older, got {schema}: update trilemma")
    return race


def merged(old: Iterable[Race], new: Iterable[Race]) -> list[Race]:
    """All races, a new one in the place of the old one of the same work; what is new at all comes last."""
    fresh = {race.work: race for race in new}
    kept = [fresh.pop(race.work, race) for race in old]
    return kept + list(fresh.values())


def check_writable(path: Path) -> None:
    """Try to write beside the file, before minutes are spent on what it should hold.

    Raises:
        UserError: if it cannot be written, or is a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: expected a file to write, got {'a folder' if path.is_dir() else 'a device'}")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"")
        part.unlink()
    except OSError as error:
        raise UserError(f"{path}: it cannot be written ({error.strerror})") from error


def save(path: Path, races: Iterable[Race]) -> None:
    """Replace the file at once: a reader finds the old lines or the new ones.

    Raises:
        UserError: if it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    lines = [race.model_dump_json(by_alias=True) for race in races]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: it cannot be written ({error.strerror})") from error

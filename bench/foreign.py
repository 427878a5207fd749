"""Whether the values of a record that was read are of the types that records have: a stranger's line may hold anything.

Without it one such line would end whatever reads the folder, far from where it could be told. Imports no torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, get_args

from bench.record import Measurement, Record, Status

_NONE = type(None)
_RECORD = {"key": str, "train_key": str, "error": str, "skipped": dict, "provenance": dict, "metric_keys": dict}
_CELL = {"model": str, "dataset": str, "seed": int, "config": dict, "samples": (int, _NONE)}
_DRAW = {"sampler": str, "spacing": str, "variance": (str, _NONE), "clip": bool, "options": dict}
_ARTIFACT = {"role": str, "path": str, "sha256": str}
_MEASUREMENT = {
    **{"metric": str, "value": (int, float), "unit": str, "better": str, "n": (int, float), "scope": str},
    **{"low": (int, float, _NONE), "high": (int, float, _NONE), "kind": (str, _NONE), "protocol": dict, "note": str},
}
_MOST = sys.float_info.max
_parts = attrgetter(*_MEASUREMENT)
_good: set[tuple[type, ...]] = set()
"""Types of measurements that were found right: there are few, and millions of measurements."""


def check(record: Record) -> None:
    """Look at all that is read by name.

    Raises:
        TypeError, ValueError: naming what is wrong.
    """
    _fields(record, _RECORD)
    _fields(record.cell, _CELL)
    if record.cell.draw is not None:
        _fields(record.cell.draw, _DRAW)
    if record.status not in get_args(Status):
        raise ValueError(f"status: expected one of {get_args(Status)}, got {record.status!r}")
    for artifact in record.artifacts:
        _fields(artifact, _ARTIFACT)
    for name, table in (("skipped", record.skipped), ("metric_keys", record.metric_keys)):
        for value in table.values():
            if type(value) is not str:
                raise TypeError(f"{name}: expected words, got {value!r}")
    for m in record.measured:
        kinds = tuple(map(type, _parts(m)))
        if kinds not in _good:
            _fields(m, _MEASUREMENT)
            _good.add(kinds)
    if not _sum_is_finite(record.measured):  # by far the quickest to ask; it may also be that large numbers add up
        for m in record.measured:
            for number in (m.value, m.low, m.high, m.n):
                if number is not None and not -_MOST <= number <= _MOST:  # nor are NaN and an integer beyond all floats
                    raise ValueError(f"{m.metric}: expected a finite number, got {number!r:.40}")


def _sum_is_finite(measured: Iterable[Measurement]) -> bool:
    total = 0.0
    try:
        for m in measured:
            total += m.value + m.n
            if m.low is not None:
                total += m.low
            if m.high is not None:
                total += m.high
    except OverflowError:  # an integer beyond all floats
        return False
    return math.isfinite(total)


def check_run(info: Mapping[str, Any]) -> None:
    """Look at what is read of a `run.json`.

    Raises:
        TypeError: naming what is wrong.
    """
    for name in ("keys", "missing"):
        told = info.get(name, [])
        if not (isinstance(told, list) and all(isinstance(item, str) for item in told)):
            raise TypeError(f"{name}: expected a list of words, got {told!r:.60}")
    if not isinstance(info.get("families", {}), dict):
        raise TypeError(f"families: expected an object, got {info['families']!r:.60}")


def _fields(part: Any, expected: Mapping[str, Any]) -> None:
    for name, kinds in expected.items():
        value = getattr(part, name)
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if type(value) not in allowed:  # bool is an int, but no number of ours
            told = " or ".join("none" if kind is _NONE else kind.__name__ for kind in allowed)
            raise TypeError(f"{name}: expected {told}, got {value!r:.60}")

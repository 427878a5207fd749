"""Ready-made features in .npz and .npy files, never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from baselines.errors import UserError
from bench.metrics.ready_features import FeatureRows
from bench.sources.arrays import Header, members, read_header


def holds_features(path: Path, name: str) -> bool:
    """Whether a file is a .npz with an array `features`, or a .npy of one 2-D float array.

    Raises:
        UserError: if it is damaged.
    """
    if path.suffix.lower() == ".npz":
        return "features" in members(path, name)
    if path.suffix.lower() != ".npy":
        return False
    with path.open("rb") as stream:
        header = read_header(stream, name)
    return len(header.shape) == 2 and header.dtype.kind == "f"


def in_features(path: Path, name: str, what: str) -> FeatureRows:
    """The features in a .npz file (`features` (N, d), perhaps `logits` (N, K) and a string `extractor`) or a .npy file.

    Raises:
        UserError: if they are no finite floats, or do not belong together.
    """
    if path.suffix.lower() == ".npy":
        return FeatureRows(_matrix(_array(path, None), name), None, what, name)
    headers = members(path, name)
    values = _matrix(_member(path, headers, "features"), f"{name}:features")
    logits = _matrix(_member(path, headers, "logits"), f"{name}:logits") if "logits" in headers else None
    if logits is not None and len(logits) != len(values):
        raise UserError(f"{name}: expected logits ({len(values)}, K) beside the features, got {logits.shape}")
    return FeatureRows(values, logits, what, name, _declared(path, headers))


def _declared(path: Path, headers: dict[str, Header]) -> str | None:
    if "extractor" not in headers:
        return None
    header = headers["extractor"]
    if header.shape != () or header.dtype.kind != "U":
        raise UserError(f"{path}: extractor: expected one string, got {header.dtype} {header.shape}")
    return str(_array(path, "extractor"))


def _member(path: Path, headers: dict[str, Header], key: str) -> Any:
    header = headers[key]
    if header.dtype.kind != "f":
        raise UserError(f"{path}: expected {key} as floats (N, d), got {header.dtype} {header.shape}")
    return _array(path, key)


def _array(path: Path, key: str | None) -> Any:
    try:
        found = np.load(path, allow_pickle=False)
        return found if key is None else found[key]
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def _matrix(array: Any, name: str) -> Any:
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{name}: expected floats (N, d) with one row or more, got {array.shape}")
    values = np.ascontiguousarray(array, np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: expected finite numbers, got NaN or infinity")
    return values

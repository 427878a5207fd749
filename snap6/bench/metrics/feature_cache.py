"""Features kept on disk, under the hash of images, weights, resize and dtype that made them.

A file that is damaged, or was written for anything else, is not used: it is made again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from baselines.checkpoint import write_atomically
from bench.metrics.base import Array, Features

CACHE_VARIABLE = "TRILEMMA_CACHE"
_VERSION = "1"


def default_folder() -> Path:
    """$TRILEMMA_CACHE, else the user's cache folder."""
    own = os.environ.get(CACHE_VARIABLE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else home / "trilemma" / "features"


@dataclass(frozen=True)
class FeatureCache:
    """One safetensors file a set of features."""

    folder: Path

    def load(self, key: str) -> Features | None:
        """The features saved under this key; None if there are none, or the file is not what was written."""
        path = self._path(key)
        try:
            with safe_open(path, framework="numpy") as file:
                meta = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError, ValueError):
            return None
        if meta.get("key") != key or meta.get("version") != _VERSION or meta.get("sha256") != _digest(arrays):
            return None
        logits = arrays.get("logits")
        return Features(arrays["values"].astype(np.float64), None if logits is None else logits.astype(np.float64))

    def save(self, key: str, features: Features) -> None:
        """Keep the features.

        Raises:
            OSError: if they cannot be written.
        """
        arrays = {"values": _narrow(features.values)}
        if features.logits is not None:
            arrays["logits"] = _narrow(features.logits)
        meta = {"key": key, "version": _VERSION, "sha256": _digest(arrays)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(key), save(arrays, meta))

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def _narrow(values: Array) -> Array:
    """float32 where that loses nothing, as with networks that compute in it."""
    narrow = values.astype(np.float32)
    same = np.array_equal(narrow.astype(np.float64), values)
    return np.ascontiguousarray(narrow if same else values)


def _digest(arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

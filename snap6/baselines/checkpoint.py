"""Checkpoints: safetensors beside JSON, replaced atomically, verified by hash; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor


class CorruptCheckpointError(Exception):
    """A checkpoint whose bytes are not those that were written; the message names the file."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write all of `data` or nothing: a temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(folder: Path, stem: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Save tensors as `stem-<hash>.safetensors` and, last of all, `stem.json` that points to it.

    A crash at any moment leaves the previous checkpoint whole. `meta` is any JSON; it may not use the keys
    "file" and "sha256".
    """
    data = save_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    file = folder / f"{stem}-{digest[:16]}.safetensors"
    write_atomically(file, data)
    pointer = {**meta, "file": file.name, "sha256": digest}
    write_atomically(folder / f"{stem}.json", json.dumps(pointer, indent=1, allow_nan=False).encode())
    for old in folder.glob(f"{stem}-*.safetensors"):
        if old != file:
            old.unlink()


def load(folder: Path, stem: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the meta of a checkpoint; None if there is none.

    Raises:
        CorruptCheckpointError: if the pointer or the tensors are damaged.
    """
    pointer = folder / f"{stem}.json"
    if not pointer.exists():
        return None
    try:
        meta = json.loads(pointer.read_bytes())
        file = folder / Path(meta["file"]).name  # a name, never a path out of the folder
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != meta["sha256"]:
            raise CorruptCheckpointError(f"{file}: its SHA-256 is not the one in {pointer.name}")
        tensors = load_safetensors(data)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CorruptCheckpointError(f"{pointer}: {error}") from error
    return tensors, {key: value for key, value in meta.items() if key not in ("file", "sha256")}


def remove(folder: Path, stem: str) -> None:
    """Delete a checkpoint, the pointer first."""
    (folder / f"{stem}.json").unlink(missing_ok=True)
    for file in folder.glob(f"{stem}-*.safetensors"):
        file.unlink()


def set_aside(folder: Path, stem: str) -> list[Path]:
    """Rename a damaged checkpoint's files to `*.corrupt`, so that training starts again; returns the new names."""
    moved = []
    for file in (folder / f"{stem}.json", *folder.glob(f"{stem}-*.safetensors")):
        if file.exists():
            moved.append(file.replace(file.with_name(file.name + ".corrupt")))
    return moved

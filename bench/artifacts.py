"""Files beside the records, named by the hash of their content: sample grids, real images, strips, curves, timings."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.checkpoint import write_atomically
from baselines.contract import Strip
from bench import durable
from bench.record import Artifact


def save_images(results: Path, role: str, images: NDArray[np.uint8], levels: int) -> Artifact:
    """uint8 images (N, C, H, W) and their number of levels, as a compressed npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, levels=np.array(levels))
    return _save(results, role, buffer.getvalue(), "npz")


def save_strip(results: Path, strip: Strip, levels: int) -> Artifact:
    """A table of pictures with its words, as a compressed npz: images, levels, and the words as JSON in `words`."""
    words = {"title": strip.title, "caption": strip.caption, "rows": strip.rows, "columns": strip.columns}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=strip.images.numpy(), levels=np.array(levels), words=np.array(json.dumps(words)))
    return _save(results, "strip", buffer.getvalue(), "npz")


def save_json(results: Path, role: str, content: Any) -> Artifact:
    """Plain values as JSON."""
    return _save(results, role, json.dumps(content, allow_nan=False).encode(), "json")


def load_images(results: Path, artifact: Artifact) -> NDArray[np.uint8] | None:
    """The images of an artifact; None if the file is missing or is not what was written."""
    data = _read(results, artifact)
    if data is None:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        images: NDArray[np.uint8] = archive["images"]
    return images


def is_whole(results: Path, artifact: Artifact) -> bool:
    """Whether the file is there and is what was written."""
    return _read(results, artifact) is not None


def _read(results: Path, artifact: Artifact) -> bytes | None:
    path = results / "artifacts" / Path(artifact.path).name
    try:
        if not durable.is_inside(path, results) or not path.is_file():
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == artifact.sha256 else None


def _save(results: Path, role: str, data: bytes, ending: str) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    path = Path("artifacts") / f"{role}-{digest[:16]}.{ending}"
    artifact = Artifact(role, path.as_posix(), digest)
    if not is_whole(results, artifact):
        write_atomically(results / path, data)
        durable.sync_folder((results / path).parent)
    return artifact

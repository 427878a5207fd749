"""Artifacts beside the records, read with suspicion: inside the folder, unchanged, and of the right shape."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.errors import UserError
from bench.record import Artifact, Record


@dataclass(frozen=True)
class Images:
    """Images as a record's artifact holds them."""

    pixels: NDArray[np.uint8]  # (n, C, H, W), levels 0 .. levels - 1
    levels: int


def read_artifact(folder: Path, artifact: Artifact) -> bytes:
    """The bytes of an artifact.

    Raises:
        UserError: if its path leaves the folder, or the file is missing or not the one that was recorded.
    """
    inside, path = Path(folder).resolve(), PurePosixPath(artifact.path)
    target = (inside / path).resolve()
    if path.is_absolute() or not target.is_relative_to(inside):
        raise UserError(f"artifact {artifact.path!r}: refused, its path leaves the results folder")
    try:
        data = target.read_bytes()
    except OSError as error:
        raise UserError(f"artifact {artifact.path}: cannot be read ({error.strerror or error})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != artifact.sha256:
        raise UserError(f"artifact {artifact.path}: damaged, expected sha256 {artifact.sha256[:12]}, got {digest[:12]}")
    return data


def read_images(folder: Path, artifact: Artifact) -> Images:
    """Samples or real images: an npz file with `images` uint8 (n, C, H, W) and `levels`.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            images, levels = held["images"], int(held["levels"])
    except (ValueError, KeyError, OSError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"artifact {artifact.path}: expected an npz of images and levels, got {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not 2 <= levels <= 256:
        raise UserError(
            f"artifact {artifact.path}: expected uint8 images (n, 1 or 3, H, W) and 2 to 256 levels, "
            f"got {images.dtype} {images.shape} and {levels}"
        )
    return Images(images, levels)


def read_curve(folder: Path, artifact: Artifact) -> list[dict[str, float]]:
    """A training curve: JSON with `rows`, each a mapping of names to numbers. Non-numbers are left out.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        rows: Any = json.loads(data)["rows"]
        return [
            {str(k): float(v) for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"artifact {artifact.path}: expected a curve with rows, got {error}") from error


def artifact_of(record: Record, role: str) -> Artifact | None:
    """The record's first artifact of a role."""
    return next((a for a in record.artifacts if a.role == role), None)

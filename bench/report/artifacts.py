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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.errors import UserError
from bench.record import Artifact, Record


@dataclass(frozen=True)
class Images:
    """Images as a record's artifact holds them."""

    pixels: NDArray[np.uint8]  # (n, C, H, W), levels 0 .. levels - 1
    levels: int


@dataclass(frozen=True)
class StripImages:
    """A table of pictures with its words, as a training's record holds it."""

    title: str
    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    pixels: NDArray[np.uint8]  # (rows, columns, C, H, W), levels 0 .. levels - 1
    levels: int


class Band(NamedTuple):
    """A number at each timestep with its interval; all three of one length."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


_LONGEST = {"title": 200, "caption": 2000, "label": 80}  # characters
_MOST_PICTURES = 1000  # of a strip
_MOST_TIMESTEPS = 100_000


def read_artifact(folder: Path, artifact: Artifact) -> bytes:
    """The bytes of an artifact.

    Raises:
        UserError: if its path leaves the folder, or the file is missing or not the one that was recorded.
    """
    inside, path = Path(folder).resolve(), PurePosixPath(artifact.path)
    target = (inside / path).resolve()
    if path.is_absolute() or not target.is_relative_to(inside):
        raise UserError(f"artifact {artifact.path!r}: refused, its path leaves the results folder")
    if target.exists() and not target.is_file():  # a pipe would be read for ever
        raise UserError(f"artifact {artifact.path!r}: refused, it is no file")
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


def read_strip(folder: Path, artifact: Artifact) -> StripImages:
    """A table of pictures: an npz with `images` uint8 (rows, columns, C, H, W), `levels`, and `words`, a JSON text.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            images, levels, words = held["images"], int(held["levels"]), json.loads(str(held["words"]))
        title, caption = _text(words["title"], "title"), _text(words["caption"], "caption")
        rows, columns = (tuple(_text(label, "label") for label in words[name]) for name in ("rows", "columns"))
    except (ValueError, KeyError, OSError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"artifact {artifact.path}: expected an npz of a strip, got {error}") from error
    if (
        images.dtype != np.uint8
        or images.ndim != 5
        or images.shape[:2] != (len(rows), len(columns))
        or not 1 <= len(rows) * len(columns) <= _MOST_PICTURES
        or images.shape[2] not in (1, 3)
        or min(images.shape) < 1
        or not 2 <= levels <= 256
    ):
        raise UserError(
            f"artifact {artifact.path}: expected uint8 images ({len(rows)}, {len(columns)}, 1 or 3, H, W), at most "
            f"{_MOST_PICTURES}, and 2 to 256 levels, got {images.dtype} {images.shape} and {levels}"
        )
    return StripImages(title, caption, rows, columns, images, levels)


def read_terms(folder: Path, artifact: Artifact) -> dict[str, Band]:
    """The terms of each likelihood at every timestep: JSON {likelihood: {"L_t": {"mean", "low", "high": [numbers]}}}.

    A likelihood without L_t is left out.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        plain: Any = json.loads(data)
        return {str(name): _band(curves["L_t"]) for name, curves in plain.items() if "L_t" in curves}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"artifact {artifact.path}: expected terms by likelihood, got {error}") from error


def _band(curve: Any) -> Band:
    """A bound that is null, as of a single image, is the mean itself."""
    mean, low, high = (curve[name] for name in Band._fields)
    lows, highs = ([m if v is None else v for m, v in zip(mean, part, strict=True)] for part in (low, high))
    band = Band(*(tuple(float(v) for v in part) for part in (mean, lows, highs)))
    if not 1 <= len(band.mean) <= _MOST_TIMESTEPS:
        raise ValueError(f"{len(band.mean)} timesteps")
    if not all(math.isfinite(v) for part in band for v in part):
        raise ValueError("a number that is not finite")
    return band


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST[what]:
        raise ValueError(f"a {what} that is no text of at most {_LONGEST[what]} characters")
    return value


def artifact_of(record: Record, role: str) -> Artifact | None:
    """The record's first artifact of a role."""
    return next((a for a in record.artifacts if a.role == role), None)

"""A user's own images in a NumPy file, .npz or .npy, of plain uint8 arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.config import nearest
from baselines.data.dataset import Dataset
from baselines.data.splitting import Images, Index, Part, user_splits
from baselines.errors import UserError
from baselines.types import ImageShape

Arrays = Mapping[str, NDArray[Any]]

_SPLITS = ("train", "val", "test")
_KNOWN = ("images", "labels", "levels", *_SPLITS, *(f"{split}_labels" for split in _SPLITS))
_EXAMPLE = "numpy.savez(path, train=images, train_labels=labels, test=...)"


def load(path: Path, name: str) -> Dataset:
    """The images in a NumPy file, with 256 levels or as many as its scalar `levels` says (2 .. 256).

    Arrays train, val and test are the user's own split (completed by content if val or test is missing); one array,
    called images or anything else, is split by content. Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with
    C of 1 or 3; labels are integers (N,) from 0 in train_labels, val_labels, test_labels, or labels beside images.

    Raises:
        UserError: if the file is pickled, damaged or no NumPy file, or an array is not as said above.
    """
    arrays = _named(_read(path, name), name)
    levels = _levels(arrays, name)
    splits = ["images"] if "images" in arrays else [split for split in _SPLITS if split in arrays]
    parts: dict[str, Part] = {}
    for split in splits:
        images = _images(arrays[split], levels, f"{name}: {split}")
        key = "labels" if split == "images" else f"{split}_labels"
        labels = _labels(arrays[key], len(images), f"{name}: {key}") if key in arrays else None
        parts["train" if split == "images" else split] = Part(images, labels)
    classes = _classes(parts, name)
    shape = _one_shape(parts, levels, name)
    made = user_splits(parts, name)
    return Dataset(
        name=name,
        shape=shape,
        train=made.train,
        val=made.val,
        test=made.test,
        source="the user's own images",
        note=f"{made.note}; {_levels_note(arrays, parts)}",
        classes=classes,
    )


def _read(path: Path, name: str) -> dict[str, Any]:
    """All arrays of the file; nothing is ever unpickled, since that would run the file's code."""
    try:
        with path.open("rb") as file:
            pickled = file.read(1) == b"\x80"  # how every pickle since protocol 2 begins
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except ValueError as error:
        if pickled or "Object arrays" in str(error):
            raise UserError(
                f"{name}: expected plain uint8 arrays, got pickled objects, which are refused, since loading them can "
                f"run any code; save plain arrays, such as {_EXAMPLE}"
            ) from None
        raise UserError(f"{name}: expected a .npz or .npy file, got something else or a damaged one") from None
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{name}: expected a sound .npz or .npy file, got a damaged one ({error})") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error}); check the path") from None


def _named(arrays: dict[str, Any], name: str) -> dict[str, NDArray[Any]]:
    """The arrays under known names: a single one of another name is `images`."""
    unknown = [key for key in arrays if key not in _KNOWN]
    has_images = any(split in arrays for split in ("images", *_SPLITS))
    if len(unknown) == 1 and not has_images:
        arrays = {("images" if key == unknown[0] else key): value for key, value in arrays.items()}
    elif unknown:
        raise UserError(f"{name}: unknown array {unknown[0]!r}{nearest(unknown[0], _KNOWN)}; save as in {_EXAMPLE}")
    elif not has_images:
        raise UserError(f"{name}: expected an array of images, got only {', '.join(arrays) or 'nothing'}")
    if "images" in arrays and any(split in arrays for split in _SPLITS):
        raise UserError(f"{name}: expected either images or train, val and test, got both; leave one out")
    for key, value in arrays.items():
        if not isinstance(value, np.ndarray):
            raise UserError(f"{name}: expected arrays alone, got a file {key!r}; save as in {_EXAMPLE}")
        base = "images" if key == "labels" else key.removesuffix("_labels")
        if key != "levels" and base not in arrays:
            raise UserError(f"{name}: expected images {base!r} for {key!r}, got none")
    return arrays


def _levels(arrays: Arrays, name: str) -> int:
    if "levels" not in arrays:
        return 256
    value = arrays["levels"]
    if value.ndim != 0 or not np.issubdtype(value.dtype, np.integer) or not 2 <= int(value) <= 256:
        raise UserError(f"{name}: levels: expected one integer from 2 to 256, got {value!r}")
    return int(value)


def _levels_note(arrays: Arrays, parts: Mapping[str, Part]) -> str:
    if "levels" in arrays:
        return f"{int(arrays['levels'])} levels as the file says"
    highest = max(int(part.images.max()) for part in parts.values())
    return f"256 levels, since the file has no `levels` (the largest value is {highest})"


def _images(array: NDArray[Any], levels: int, where: str) -> Images:
    """uint8 (N, C, H, W), checked."""
    if array.dtype != np.uint8:
        raise UserError(
            f"{where}: expected uint8 values 0 .. {levels - 1}, got {array.dtype}; scale and convert them, "
            "such as (255 * x).round().astype('uint8')"
        )
    shape = array.shape
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and (shape[1] in (1, 3)) != (shape[3] in (1, 3)):
        array = array if shape[1] in (1, 3) else array.transpose(0, 3, 1, 2)
    else:
        raise UserError(f"{where}: expected (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3, got {shape}")
    if 0 in array.shape:
        raise UserError(f"{where}: expected at least one image with at least one pixel, got {shape}")
    highest = int(array.max())
    if highest >= levels:
        raise UserError(f"{where}: expected values 0 .. {levels - 1} for {levels} levels, got {highest}")
    return array


def _labels(array: NDArray[Any], n: int, where: str) -> Index:
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (n,):
        raise UserError(f"{where}: expected integers ({n},), got {array.dtype} {array.shape}")
    if n and int(array.min()) < 0:
        raise UserError(f"{where}: expected classes from 0, got {int(array.min())}")
    return array.astype(np.int64)


def _classes(parts: Mapping[str, Part], name: str) -> int | None:
    labelled = [split for split, part in parts.items() if part.labels is not None]
    if labelled and len(labelled) < len(parts):
        raise UserError(f"{name}: expected labels for all of {', '.join(parts)} or none, got {', '.join(labelled)}")
    return 1 + max(int(part.labels.max()) for part in parts.values() if part.labels is not None) if labelled else None


def _one_shape(parts: Mapping[str, Part], levels: int, name: str) -> ImageShape:
    shapes = {split: part.images.shape[1:] for split, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"{name}: expected images of one shape (C, H, W), got {shapes}")
    channels, height, width = next(iter(shapes.values()))
    return ImageShape(channels, height, width, levels)

"""What a user names as images: a path, a data set, a tensor, a generator."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from baselines.config import nearest
from baselines.data import catalogue
from baselines.errors import UserError
from baselines.types import ImageShape, Progress
from bench.metrics.images import Held, ImageSet, of_split
from bench.sources.arrays import in_npy, in_npz, spooled, too_high
from bench.sources.feature_files import holds_features, in_features
from bench.sources.files import in_folder, in_zip

Images = str | Path | Tensor | Iterable[Tensor]
SPLITS = ("train", "val", "test")


def open_images(
    images: Images,
    what: str,
    data_dir: Path | None = None,
    levels: int = 256,
    progress: Progress = lambda phase, done, total: None,
) -> ImageSet:
    """Images to compare, read when they are needed; or features that were made of them, held in memory.

    Args:
        images: a folder, .zip, .npz or .npy file of images or of features; a data set by name, of which the test
            split is taken (`mnist:train` names another); a uint8 tensor (N, C, H, W); or an iterable of such batches.
        what: what they are, for messages: "samples".
        data_dir: where data sets on disk are looked for.
        levels: how many a pixel has, of tensors, and of arrays that do not say it.
        progress: told (phase, done, total).

    Raises:
        UserError: if there are none, or they cannot be read.
    """
    if isinstance(images, Tensor):
        return _of_tensor(images, levels, what)
    if not isinstance(images, str | Path):
        return spooled(images, levels, "a generator", what, progress)
    path = Path(images)
    if path.is_dir():
        return in_folder(path, str(images), what, progress)
    if path.is_file():
        return _of_file(path, str(images), what, levels, progress)
    return _of_dataset(str(images), what, data_dir)


def _of_tensor(images: Tensor, levels: int, what: str) -> ImageSet:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise UserError(
            f"{what}: expected uint8 (N, C, H, W) with C of 1 or 3, got {images.dtype} {tuple(images.shape)}"
        )
    highest = int(images.max())
    if highest >= levels:
        raise UserError(f"{what}: {too_high(highest, levels)}")
    return Held(images, ImageShape(images.shape[1], images.shape[2], images.shape[3], levels), what, "a tensor")


def _of_file(path: Path, name: str, what: str, levels: int, progress: Progress) -> ImageSet:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return in_zip(path, name, what, progress)
    if suffix not in (".npz", ".npy"):
        raise UserError(f"{name}: expected a folder of images, or a file .zip, .npz or .npy, got {path.suffix!r}")
    if holds_features(path, name):
        return in_features(path, name, what)
    return (in_npz if suffix == ".npz" else in_npy)(path, name, what, levels, progress)


def _of_dataset(name: str, what: str, data_dir: Path | None) -> ImageSet:
    base, colon, split = name.rpartition(":")
    if not (colon and split in SPLITS):
        base, split = name, "test"
    known = [info.name for info in catalogue.names()]
    if base not in known and not base.startswith(("folder:", "npz:")):
        raise UserError(f"{what}: {name} is no folder and no file, and no data set by name{nearest(base, known)}")
    held = of_split(catalogue.load(base, data_dir), split)
    held.what = f"{what} ({base}, {split} split)"
    held.split = f"{base}:{split}"
    if not len(held):
        raise UserError(f"{what}: {name} has no {split} images")
    return held

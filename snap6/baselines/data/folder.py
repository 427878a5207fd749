"""A user's own folder of images, grey or RGB, all of one size."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from baselines.data.dataset import Dataset
from baselines.data.decoding import SUFFIXES, decode, look, one_size
from baselines.data.splitting import Images, Part, user_splits
from baselines.errors import UserError
from baselines.types import ImageShape

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def load(root: Path, name: str) -> Dataset:
    """Every image under root, as 256 levels; hidden files are left out, symbolic links are followed.

    Folders train, val and test directly under root are the user's own split (completed by content if val or test is
    missing); without them all images are split by content. Other folders mean nothing. Palettes are resolved; if any
    image has colour all become RGB; an alpha channel must be opaque, as what lies behind is the user's choice; pixels
    are taken as stored, without EXIF rotation.

    Raises:
        UserError: naming the file that cannot be read, the two of different size, or what else is amiss.
    """
    paths, others = find(root)
    if not paths:
        raise UserError(f"{name}: expected images ({' '.join(sorted(SUFFIXES))}) in {root}, found none")
    looks = [look(path, path) for path in paths]
    width, height = one_size(looks, name)
    mode = "L" if all(seen.grey for seen in looks) else "RGB"
    groups = _groups(paths, root, name)
    splits = user_splits({split: Part(_decode_all(found, mode)) for split, found in groups.items()}, name)
    ignored = f"; {others} files that are no images left out" if others else ""
    return Dataset(
        name=name,
        shape=ImageShape(Image.getmodebands(mode), height, width),
        train=splits.train,
        val=splits.val,
        test=splits.test,
        source="the user's own images",
        note=f"{len(paths)} images, {mode}; {splits.note}{ignored}",
    )


def find(root: Path) -> tuple[list[Path], int]:
    """All image files below root, sorted, and how many other files there are."""
    if not root.is_dir():
        raise UserError(f"folder:{root}: expected an existing folder of images; check the path")
    paths: list[Path] = []
    others, seen = 0, set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = [Path(folder) / name for name in files if not name.startswith(".")]
        images = [path for path in shown if path.suffix.lower() in SUFFIXES]
        paths += images
        others += len(shown) - len(images)
    return sorted(paths), others


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")


def _groups(paths: Sequence[Path], root: Path, name: str) -> Mapping[str, list[Path]]:
    """The files of each split that the user made, or all of them as train."""
    tops = [path.relative_to(root).parts for path in paths]
    own = [SPLITS.get(parts[0].lower()) if len(parts) > 1 else None for parts in tops]
    if not any(own):
        return {"train": list(paths)}
    groups: dict[str, list[Path]] = {}
    for path, split in zip(paths, own, strict=True):
        if split is None:
            raise UserError(
                f"{name}: expected all images inside train, val and test, since these folders exist, got {path} "
                "beside them; move it into one of them or away"
            )
        groups.setdefault(split, []).append(path)
    return groups


def _decode_all(paths: Sequence[Path], mode: str) -> Images:
    """uint8 (N, C, H, W), decoded into one array, since a large folder is not to be held twice."""
    out: Images | None = None
    for i, path in enumerate(paths):
        pixels = decode(path, path, mode)
        if out is None:
            out = np.empty((len(paths), *pixels.shape), dtype=np.uint8)
        out[i] = pixels
    assert out is not None
    return out

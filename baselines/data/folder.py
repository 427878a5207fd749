"""A user's own folder of images, grey or RGB, all of one size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from baselines.data.dataset import Dataset
from baselines.data.splitting import Images, Part, user_splits
from baselines.errors import UserError
from baselines.types import ImageShape

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # and no format that starts another program
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"})


@dataclass(frozen=True)
class _Look:
    """What a file's header says."""

    path: Path
    size: tuple[int, int]  # (width, height)
    grey: bool


def load(root: Path, name: str) -> Dataset:
    """Every image under root, as 256 levels; hidden files are left out, symbolic links are followed.

    Folders train, val and test directly under root are the user's own split (completed by content if val or test is
    missing); without them all images are split by content. Other folders mean nothing. Palettes are resolved; if any
    image has colour all become RGB; an alpha channel must be opaque, as what lies behind is the user's choice; pixels
    are taken as stored, without EXIF rotation.

    Raises:
        UserError: naming the file that cannot be read, the two of different size, or what else is amiss.
    """
    paths, others = _find(root)
    if not paths:
        raise UserError(f"{name}: expected images ({' '.join(sorted(SUFFIXES))}) in {root}, found none")
    looks = [_look(path) for path in paths]
    for look in looks:
        if look.size != looks[0].size:
            sizes = " and ".join(f"{one.path} of {one.size[0]}x{one.size[1]}" for one in (looks[0], look))
            raise UserError(f"{name}: expected images of one size, got {sizes}; resize or crop them to one size")
    width, height = looks[0].size
    mode = "L" if all(look.grey for look in looks) else "RGB"
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


def _find(root: Path) -> tuple[list[Path], int]:
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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever they meet: SyntaxError, struct.error, ...
        raise UserError(f"{path}: cannot be read as an image ({error}); mend or remove it") from None


def _look(path: Path) -> _Look:
    with _opened(path) as image:
        if image.mode not in _MODES:
            raise UserError(f"{path}: expected 8-bit grey or RGB, got mode {image.mode}; convert it")
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a JPEG with its previews
        if frames > 1:
            raise UserError(f"{path}: expected a still image, got {frames} frames; save one frame")
        palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
        grey = image.mode in ("1", "L", "LA", "La")
        if palette is not None:
            grey = palette[0::3] == palette[1::3] == palette[2::3]
        return _Look(path, image.size, grey)


def _decode_all(paths: Sequence[Path], mode: str) -> Images:
    """uint8 (N, C, H, W), decoded into one array, since a large folder is not to be held twice."""
    out: Images | None = None
    for i, path in enumerate(paths):
        pixels = _decode(path, mode)
        if out is None:
            out = np.empty((len(paths), *pixels.shape), dtype=np.uint8)
        out[i] = pixels
    assert out is not None
    return out


def _decode(path: Path, mode: str) -> Images:
    with _opened(path) as image:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[0] != 255:
                raise UserError(f"{path}: expected an opaque image, got transparent pixels; flatten it first")
        pixels = np.asarray(image.convert(mode), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

"""CelebA (Liu et al. 2015, arXiv:1411.7766): aligned faces at 64x64, with domains that faces can be translated between.

The aligned images, 178x218, are cropped to their central 140x140 pixels (as Song and Ermon 2019, arXiv:1907.05600, did)
and resized to 64x64 by Pillow's bilinear filter, which averages where it shrinks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from baselines.data import fetching
from baselines.data.dataset import Dataset, Split
from baselines.data.decoding import decode
from baselines.data.splitting import Images, Index, as_split
from baselines.errors import UserError
from baselines.given import Given, Requests
from baselines.types import Conditions, ImageShape

NAME = "celeba"
DESCRIPTION = "202,599 faces, cropped and resized to 64x64 RGB, 256 levels; domains of hair, sex and age"
PARTITION, LIST = "list_eval_partition.txt", "list_attr_celeba.txt"
FOLDER = "img_align_celeba"
ZIP = f"{FOLDER}.zip"
MD5 = {
    ZIP: "00d2c5bc6d35e252742224ab0c1e8fcb",
    LIST: "75e246fa4810816ffd6ee81facbd244c",
    PARTITION: "d32c9cbf5e040fd4025c592c306e6668",
}
"""As torchvision has them."""

SIZE, CROP, SIDE = (178, 218), 140, 64  # (width, height) of the aligned images; pixels of the square; of the result
HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")
ATTRIBUTES = {"hair": ("black", "blond", "brown", "other"), "male": ("no", "yes"), "young": ("no", "yes")}
_LARGEST = 1 << 20  # bytes of an image; the published ones have a fiftieth
_CHUNK = 4_096  # images decoded at a time

Read = Callable[[str], bytes]


def load(data_dir: Path | None) -> Dataset:
    """The published partition: 162,770 training, 19,867 validation and 19,962 test images, without labels.

    The folder, its celeba or its CelebA holds the two lists, and beside them the archive of aligned images, which is
    read without being unpacked, or its unpacked folder. Lists and archive are verified by MD5; of the folder no
    checksum is published. Decoding takes a minute or more, so the result (2.5 GB) is kept in the cache folder.

    Attributes are those of StarGAN (Choi et al. 2018, arXiv:1711.09020): hair (other: none of the three colours, or
    several), male and young. Every validation and test image carries a request for another domain, never for `other`.

    Raises:
        UserError: if the files are neither there nor to be had, or are others.
    """
    root = fetching.data_root(data_dir)
    folders = [root / NAME, root / "CelebA", root]
    paths = fetching.find_together(folders, [PARTITION, LIST], NAME)
    if not paths:
        names = [PARTITION, LIST, ZIP]
        paths = dict(zip(names, fetching.download(NAME, root, names, _fetch), strict=True))
    for name in (PARTITION, LIST):
        fetching.check_md5(paths[name], MD5[name], NAME)
    names, partition = read_partition(paths[PARTITION])
    values = read_attributes(paths[LIST], names)
    images = _images(paths[PARTITION].parent, names)
    train, val, test = (_split(images, values, np.flatnonzero(partition == i)) for i in range(3))
    shape = ImageShape(3, SIDE, SIDE)
    return Dataset(
        name=NAME,
        shape=shape,
        train=train,
        val=_asked(val, "val"),
        test=_asked(test, "test"),
        source="Liu, Luo, Wang and Tang 2015, Deep learning face attributes in the wild; CelebA, arXiv:1411.7766",
        note=f"aligned images, central {CROP}x{CROP} pixels, resized to {SIDE}x{SIDE} (bilinear, antialiased); as "
        f"published, train {len(train)}, val {len(val)}, test {len(test)}",
        tasks=frozenset({"unconditional", "domain_translation"}),
        conditions=Conditions(attributes=ATTRIBUTES, source=shape),
    )


def read_partition(path: Path) -> tuple[list[str], Index]:
    """Names of the images, and 0, 1 or 2 for train, val and test (N,).

    Raises:
        UserError: if a line is not `NUMBER.jpg 0`, naming it.
    """
    names, parts = [], []
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(), start=1):
        found = re.fullmatch(r"(\d+\.jpg)\s+([012])", line.strip())  # a name that leads to another folder is none
        if found is None:
            raise UserError(f"{path}:{number}: expected `000001.jpg 0`, got {line[:60]!r}; fetch the file again")
        names.append(found[1])
        parts.append(int(found[2]))
    if set(parts) != {0, 1, 2}:
        raise UserError(f"{path}: expected images of all three parts 0, 1 and 2, got {sorted(set(parts)) or 'none'}")
    return names, np.array(parts, np.int64)


def read_attributes(path: Path, names: list[str]) -> Tensor:
    """The values of ATTRIBUTES that each image has, int64 (N, 3), in the order of `names`.

    Raises:
        UserError: if the list is of other images or lacks an attribute.
    """
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    heads, rows = lines[1].split() if len(lines) > 1 else [], [line.split() for line in lines[2:] if line.strip()]
    lacking = [name for name in (*HAIR, "Male", "Young") if name not in heads]
    if lacking:
        raise UserError(f"{path}: expected a column {lacking[0]} in its second line, got none; fetch the file again")
    if [row[0] for row in rows] != names:
        raise UserError(f"{path}: expected a row for each image of {PARTITION}, in its order; fetch both again")
    wrong = next((row for row in rows if len(row) != len(heads) + 1 or not set(row[1:]) <= {"1", "-1"}), None)
    if wrong is not None:
        raise UserError(f"{path}: {wrong[0]}: expected {len(heads)} values 1 or -1, got others; fetch the file again")
    table = np.array([row[1:] for row in rows]) == "1"
    hair = table[:, [heads.index(name) for name in HAIR]]
    colour = np.where(hair.sum(1) == 1, hair.argmax(1), len(HAIR))
    return torch.from_numpy(np.stack([colour, table[:, heads.index("Male")], table[:, heads.index("Young")]], 1)).long()


def prepared(content: bytes, name: str) -> Images:
    """uint8 (3, 64, 64) of one aligned JPEG.

    Raises:
        UserError: if it cannot be decoded or has another size.
    """
    pixels = decode(content, name, "RGB")
    width, height = SIZE
    if pixels.shape[1:] != (height, width):
        got = f"{pixels.shape[2]}x{pixels.shape[1]}"
        raise UserError(f"{name}: expected an aligned image of {width}x{height}, got {got}; fetch {ZIP}")
    top, left = (height - CROP) // 2, (width - CROP) // 2
    square = Image.fromarray(pixels[:, top : top + CROP, left : left + CROP].transpose(1, 2, 0))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _images(folder: Path, names: list[str]) -> Images:
    """uint8 (N, 3, 64, 64) in the order of `names`: from the cache, else decoded and put there."""
    archive, unpacked = folder / ZIP, folder / FOLDER
    place = archive if archive.is_file() else unpacked
    if not place.exists():
        raise UserError(f"{folder}: expected {ZIP} or the folder {FOLDER} beside the lists, got neither; copy it there")
    seen = place.stat()
    identity = (str(place.resolve()), seen.st_size, seen.st_mtime_ns, len(names), SIDE, CROP, PIL.__version__)
    key = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    cached = fetching.cache_folder() / NAME / f"{SIDE}x{SIDE}-{key}.npy"
    shape = (len(names), 3, SIDE, SIDE)
    kept = _open(cached, shape)
    if kept is not None:
        return kept
    if place == unpacked:
        return _decoded(lambda name: _file(unpacked / name), names, cached)
    fetching.check_md5(archive, MD5[ZIP], NAME)
    try:
        with zipfile.ZipFile(archive) as opened:
            return _decoded(lambda name: _member(opened, f"{FOLDER}/{name}"), names, cached)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{archive}: expected a sound archive, got a damaged one ({error}); fetch it again") from None


def _open(path: Path, shape: tuple[int, ...]) -> Images | None:
    """The array that a file of this shape holds, mapped and not read; None if there is no such file."""
    try:
        found: NDArray[np.uint8] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype == np.uint8 and found.shape == shape else None


def _decoded(read: Read, names: list[str], cached: Path) -> Images:
    """Decode all images into a new file of the cache, or into memory where that cannot be written."""
    shape = (len(names), 3, SIDE, SIDE)
    passing = cached.with_suffix(f".{os.getpid()}")
    out: NDArray[np.uint8]
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        out = np.lib.format.open_memmap(passing, mode="w+", dtype=np.uint8, shape=shape)
        allocate = getattr(os, "posix_fallocate", None)  # which macOS has not
        if allocate is not None:  # a disk that is full is to be told now; through a map it would kill us
            with passing.open("r+b") as file:
                allocate(file.fileno(), 0, passing.stat().st_size)
    except OSError as error:
        with contextlib.suppress(OSError):
            passing.unlink()
        print(f"{NAME}: {cached.parent} cannot be written ({error.strerror}); decoding each time", file=sys.stderr)
        return _fill(np.empty(shape, np.uint8), read, names)
    try:
        _fill(out, read, names)
        out.flush()
        passing.replace(cached)
    finally:
        passing.unlink(missing_ok=True)
    kept = _open(cached, shape)
    return out if kept is None else kept


def _fill(out: Images, read: Read, names: list[str]) -> Images:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders leave the interpreter to others
        for first in range(0, len(names), _CHUNK):
            chunk = names[first : first + _CHUNK]
            for i, image in enumerate(pool.map(lambda name: prepared(read(name), name), chunk), start=first):
                out[i] = image
            if len(names) > 10 * _CHUNK:
                print(f"{NAME}: {first + len(chunk):,} of {len(names):,} images prepared", file=sys.stderr)
    return out


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise UserError(f"{archive.filename}: expected {name}, got none; fetch it again") from None
    if info.file_size > _LARGEST:
        raise UserError(f"{archive.filename}: {name}: expected at most {_LARGEST} bytes, got {info.file_size}")
    return archive.read(info)


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected all of {PARTITION}") from None


def _split(images: Images, values: Tensor, index: Index) -> Split:
    first, n = int(index[0]), len(index)
    together = int(index[-1]) - first + 1 == n  # as published; so nothing of two gigabytes is copied
    part = as_split(images[first : first + n] if together else images[index], None)
    return dataclasses.replace(part, attributes=values[torch.from_numpy(index)])


def _asked(split: Split, name: str) -> Split:
    """The images, and beside each the request for another of the domains whose hair has a colour."""
    assert split.attributes is not None
    domains = torch.cartesian_prod(torch.arange(len(HAIR)), torch.arange(2), torch.arange(2))
    wanted = []
    for i, have in enumerate(split.attributes.tolist()):
        own = have[0] * 4 + have[1] * 2 + have[2]  # at or beyond the end where the hair is `other`
        number = int.from_bytes(hashlib.sha256(f"celeba {name} {i}".encode()).digest()[:7], "big")
        others = len(domains) - (own < len(domains))
        k = number % others
        wanted.append(k + (k >= own))
    want = domains[torch.tensor(wanted)]
    given = Given(images=split.images, attributes=want)
    return dataclasses.replace(split, requests=Requests(given, attributes=want, originals=split.attributes))


def _fetch(folder: Path) -> Path:
    from torchvision.datasets import CelebA  # seconds of import, needed only here
    from torchvision.datasets.utils import download_file_from_google_drive

    for file_id, md5, name in CelebA.file_list:
        if name in MD5:
            download_file_from_google_drive(file_id, str(folder), name, md5)
    return folder

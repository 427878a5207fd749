"""CIFAR-10 (Krizhevsky 2009), read from its binary version: the Python version is pickled, and never loaded here."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np

from baselines.data import fetching, published
from baselines.data.dataset import Dataset
from baselines.data.splitting import Part
from baselines.errors import UserError

NAME = "cifar10"
DESCRIPTION = "60,000 photographs, 32x32 RGB, 256 levels, 10 classes"
ARCHIVE = "cifar-10-binary.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # of the archive, as published beside it
FOLDER = "cifar-10-batches-bin"
TRAIN, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"
CLASSES = 10
IMAGES = 10_000  # in each file
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue plane, row by row
_PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py")  # torchvision's


def load(data_dir: Path | None) -> Dataset:
    """50,000 training images (5,000 of them for validation) and 10,000 test images, from files or by download.

    The folder, or its cifar10, holds the published archive, which is verified by MD5 and read without being unpacked;
    or its unpacked folder, whose files have no published checksum: their lengths and their classes' shares, which are
    equal, are checked instead.

    Raises:
        UserError: if the data is neither there nor to be had, or damaged.
    """
    root = fetching.data_root(data_dir)
    folders = [root / NAME, root]
    archive = fetching.find_together(folders, [ARCHIVE], NAME)
    files = {} if archive else fetching.find_together([f / FOLDER for f in folders], [*TRAIN, TEST], NAME)
    if files:
        contents = {name: _content(path) for name, path in files.items()}
        about = "unpacked binary version, of which no checksum is published"
    else:
        path = archive[ARCHIVE] if archive else fetching.download(NAME, root, [ARCHIVE], _fetch, _hint(folders))[0]
        fetching.check_md5(path, MD5, NAME)
        contents, about = read_archive(path), "binary version"
    parts = {name: parse(content, name) for name, content in contents.items()}
    train = Part(np.concatenate([parts[name].images for name in TRAIN]), _labels([parts[name] for name in TRAIN]))
    test = parts[TEST]
    for part, each in ((train, len(TRAIN) * IMAGES // CLASSES), (test, IMAGES // CLASSES)):
        counts = np.bincount(_labels([part]), minlength=CLASSES)
        if (counts != each).any():
            raise UserError(
                f"{NAME}: expected {each} images of each class, got {counts.tolist()}; fetch {ARCHIVE} again"
            )
    source = "Krizhevsky 2009, Learning multiple layers of features from tiny images; CIFAR-10"
    return published.assemble(NAME, train, test, source, about, CLASSES, stratified=True)


def read_archive(path: Path) -> dict[str, bytes]:
    """The content of the six files of images in a .tar.gz; nothing is written to the disk.

    Raises:
        UserError: if the archive is damaged or lacks one of them.
    """
    wanted = {f"{FOLDER}/{name}": name for name in (*TRAIN, TEST)}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = wanted.get(member.name)
                # a link could lead anywhere, and a file of another length is none of them
                if name is None or not member.isreg() or member.size != IMAGES * _RECORD:
                    continue
                file = archive.extractfile(member)
                assert file is not None
                found[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"{path}: expected a sound .tar.gz archive, got a damaged one ({error}); fetch it again"
        ) from None
    lacking = [name for name in wanted.values() if name not in found]
    if lacking:
        raise UserError(
            f"{path}: expected {', '.join(lacking)} of {IMAGES * _RECORD} bytes each in {FOLDER}, got none; "
            "fetch it again"
        )
    return found


def parse(content: bytes, where: str | Path) -> Part:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,) of a file of the binary version.

    Raises:
        UserError: if its length or a label is wrong.
    """
    if len(content) != IMAGES * _RECORD:
        raise UserError(
            f"{where}: expected {IMAGES} records of {_RECORD} bytes, {IMAGES * _RECORD} in all, got {len(content)}; "
            "fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    if int(records[:, 0].max()) >= CLASSES:
        raise UserError(f"{where}: expected classes 0 .. {CLASSES - 1}, got {int(records[:, 0].max())}; fetch it again")
    return Part(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64))


def _labels(parts: list[Part]) -> np.ndarray:
    return np.concatenate([part.labels for part in parts if part.labels is not None])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _hint(folders: list[Path]) -> str:
    """Says why the files that torchvision keeps are of no use."""
    there = next((folder / name for folder in folders for name in _PICKLED if (folder / name).exists()), None)
    if there is None:
        return ""
    return f". {there} is there, but is the Python version: its files are pickles, which can run any code when loaded"


def _fetch(folder: Path) -> Path:
    from torchvision.datasets.utils import download_url  # seconds of import, needed only here

    download_url(URL, str(folder), ARCHIVE, MD5)
    return folder

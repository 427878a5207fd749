"""MNIST (LeCun, Cortes and Burges 1998) in 8 bits, and binarised in three ways that are three data sets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.data import fetching, idx
from baselines.data.dataset import Dataset, Split
from baselines.data.splitting import as_split, stratified_order
from baselines.errors import UserError
from baselines.types import ImageShape

FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the decompressed content: the same for every way of compressing the published files."""

VAL = 5_000  # of the 60,000 published training images
THRESHOLD = 128
_SEED = 19_981_101  # of the one Bernoulli draw

VARIANTS = {
    "mnist": "8-bit intensities",
    "mnist-static": "binarised once: one Bernoulli draw per pixel with P = intensity / 255, seeded and committed",
    "mnist-dynamic": "binarised anew at every look at a training image, P = intensity / 255; val and test as in "
    "mnist-static",
    "mnist-threshold": f"binarised by intensity >= {THRESHOLD}; not the data of published binarised-MNIST figures",
}


@dataclass(frozen=True)
class Published:
    """The four arrays as published: images uint8 (N, H, W), labels uint8 (N,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def load(name: str, data_dir: Path | None) -> Dataset:
    """The variant called `name`, from files in data_dir or the cache folder, else by download.

    Raises:
        UserError: if the files are neither there nor to be had, are incomplete or damaged, or are not MNIST.
    """
    return assemble(name, read_published(find_files(data_dir)))


def find_files(data_dir: Path | None) -> dict[str, Path]:
    """The path of each of FILES: in data_dir, its mnist or MNIST/raw folder, else downloaded.

    Without data_dir, the cache folder is meant: $XDG_CACHE_HOME/trilemma, or ~/.cache/trilemma.

    Raises:
        UserError: if data_dir is no folder, holds only some of the files, or the download fails.
    """
    root = fetching.data_root(data_dir)
    folders = [root, root / "mnist", root / "MNIST" / "raw", root / "mnist" / "MNIST" / "raw"]
    found = fetching.find_together(folders, list(FILES), "MNIST", packed=True)
    if found:
        return found
    return dict(zip(FILES, fetching.download("mnist", root, [f"{name}.gz" for name in FILES], _fetch), strict=True))


def read_published(paths: dict[str, Path]) -> Published:
    """Read the four IDX files, plain or gzipped, and verify that they are the published digits.

    Raises:
        UserError: naming the file, with what was expected and got.
    """
    arrays = []
    for name, expected in FILES.items():
        content = idx.read_content(paths[name])
        arrays.append(idx.parse(content, dimensions=3 if "images" in name else 1, where=paths[name]))
        got = hashlib.sha256(content).hexdigest()
        if got != expected:
            raise UserError(
                f"{paths[name]}: wrong checksum: expected SHA-256 {expected} of the decompressed content, got {got}. "
                "These are not the published MNIST digits: fetch the file again, or, for data of your own, "
                "use npz:PATH or folder:PATH"
            )
    return Published(*arrays)


def assemble(name: str, raw: Published, val: int = VAL) -> Dataset:
    """Split the published images and prepare the variant.

    The first `val` training images of `stratified_order` are for validation, rather than the file's last 5,000 that
    some papers take: so the classes are balanced, and nothing hangs on the order of the file. Test is as published.
    """
    order = stratified_order(raw.train_labels.astype(np.int64))
    val_index, train_index = order[:val], order[val:]
    sources = (
        (raw.train_images, raw.train_labels, train_index),
        (raw.train_images, raw.train_labels, val_index),
        (raw.test_images, raw.test_labels, np.arange(len(raw.test_images))),
    )
    drawn = _bernoulli(raw) if name in ("mnist-static", "mnist-dynamic") else None
    splits = []
    for i, (images, labels, index) in enumerate(sources):
        grey = as_split(images[index][:, None], labels[index].astype(np.int64))
        binary = None if drawn is None else drawn[1 if i == 2 else 0][index]
        splits.append(_variant(name, grey, binary, redrawn=i == 0))
    train, validation, test = splits
    height, width = raw.train_images.shape[1:]
    return Dataset(
        name=name,
        shape=ImageShape(1, height, width, 256 if name == "mnist" else 2),
        train=train,
        val=validation,
        test=test,
        source="LeCun, Cortes and Burges 1998, the MNIST database of handwritten digits",
        note=f"{VARIANTS[name]}; val is {len(validation)} of the published training images, stratified by class, "
        f"ordered by SHA-256 of the index; train the other {len(train)}; test as published ({len(test)})",
        classes=10,
    )


def _variant(name: str, grey: Split, binary: NDArray[np.uint8] | None, redrawn: bool) -> Split:
    if name == "mnist":
        return grey
    if binary is None:
        return replace(grey, images=(grey.images >= THRESHOLD).to(torch.uint8))
    intensities = grey.images if redrawn and name == "mnist-dynamic" else None
    return replace(grey, images=torch.from_numpy(binary[:, None]), intensities=intensities)


def _bernoulli(raw: Published) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One draw of every training, then every test pixel, in file order: whatever the split, the same draw.

    Raw PCG64 words are used, since NumPy promises that stream for all versions and platforms. A 32-bit word
    modulo 255 is uniform on 0 .. 254 within 2^-32, and below `intensity` with probability intensity / 255.
    """
    source = np.random.PCG64(_SEED)
    drawn = []
    for images in (raw.train_images, raw.test_images):
        binary = np.empty_like(images)
        for first in range(0, len(images), 1_000):  # an even number, so that no half word is left over between
            block = images[first : first + 1_000]
            words = source.random_raw((block.size + 1) // 2).astype("<u8").view("<u4")[: block.size]
            binary[first : first + 1_000] = (words % 255).reshape(block.shape) < block
        drawn.append(binary)
    return drawn[0], drawn[1]


def _fetch(folder: Path) -> Path:
    from torchvision.datasets import MNIST  # seconds of import, needed only here

    MNIST(str(folder), download=True)
    return folder / "MNIST" / "raw"

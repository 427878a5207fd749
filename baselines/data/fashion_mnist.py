"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747): articles of clothing in MNIST's format."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from baselines.data import fetching, idx, mnist, published
from baselines.data.dataset import Dataset
from baselines.data.splitting import Part
from baselines.errors import UserError

NAME = "fashion-mnist"
DESCRIPTION = "70,000 articles of clothing, 28x28 grey, 256 levels, 10 classes"
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""Of each published file with .gz at its end, as torchvision has them."""


def load(data_dir: Path | None) -> Dataset:
    """60,000 training images (5,000 of them for validation) and 10,000 test images, from files or by download.

    The files are looked for in the folder's fashion-mnist or FashionMNIST/raw and never in the folder itself, where
    MNIST's, of the same names, may lie. Packed ones are verified by MD5; unpacked ones have no published checksum, so
    that they are not MNIST is all that is made sure of.

    Raises:
        UserError: if the files are neither there nor to be had, are incomplete or damaged, or are others.
    """
    root = fetching.data_root(data_dir)
    folders = [root / NAME, root / "FashionMNIST" / "raw", root / NAME / "FashionMNIST" / "raw"]
    paths = fetching.find_together(folders, list(MD5), NAME, packed=True)
    if not paths:
        packed = [f"{name}.gz" for name in MD5]
        paths = dict(zip(MD5, fetching.download(NAME, root, packed, _fetch), strict=True))
    arrays = {name: _array(name, path) for name, path in paths.items()}
    train, test = (
        _part(arrays[f"{split}-images-idx3-ubyte"], arrays[f"{split}-labels-idx1-ubyte"], split, paths)
        for split in ("train", "t10k")
    )
    source = "Xiao, Rasul and Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747"
    whole = all(path.suffix == ".gz" for path in paths.values())
    about = "8-bit intensities" + ("" if whole else "; unpacked files, of which no checksum is published")
    return published.assemble(NAME, train, test, source, about, stratified=True)


def _array(name: str, path: Path) -> np.ndarray:
    if path.suffix == ".gz":
        fetching.check_md5(path, MD5[name], NAME)
    content = idx.read_content(path)
    if hashlib.sha256(content).hexdigest() == mnist.FILES[name]:
        raise UserError(
            f"{path}: expected Fashion-MNIST, got MNIST's file of the same name; put that in {NAME}'s place"
        )
    return idx.parse(content, dimensions=3 if "images" in name else 1, where=path)


def _part(images: np.ndarray, labels: np.ndarray, split: str, paths: dict[str, Path]) -> Part:
    where = paths[f"{split}-labels-idx1-ubyte"]
    if len(images) != len(labels):
        raise UserError(f"{where}: expected {len(images)} labels, as many as images, got {len(labels)}; fetch it again")
    if len(labels) and int(labels.max()) > 9:
        raise UserError(f"{where}: expected classes 0 .. 9, got {int(labels.max())}; fetch it again")
    return Part(images[:, None], labels.astype(np.int64))


def _fetch(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST  # seconds of import, needed only here

    FashionMNIST(str(folder), download=True)
    return folder / "FashionMNIST" / "raw"

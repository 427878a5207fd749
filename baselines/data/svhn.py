"""SVHN (Netzer et al. 2011), street view house numbers: cropped digits, format 2, MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from baselines.data import fetching, published
from baselines.data.dataset import Dataset
from baselines.data.splitting import Part
from baselines.errors import UserError

NAME = "svhn"
DESCRIPTION = "99,289 house numbers' digits in photographs, 32x32 RGB, 256 levels, 10 classes"
MD5 = {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}


def load(data_dir: Path | None) -> Dataset:
    """73,257 training images (5,000 of them for validation) and 26,032 test images, from files or by download.

    The two files lie in the folder, or in its svhn or SVHN, and are verified by MD5. The further 531,131 easier
    images (`extra`) are not used. Labels are the digits; the files call 0 class 10.

    Raises:
        UserError: if the files are neither there nor to be had, or are others.
    """
    root = fetching.data_root(data_dir)
    paths = fetching.find_together([root / NAME, root / "SVHN", root], list(MD5), NAME)
    if not paths:
        paths = dict(zip(MD5, fetching.download(NAME, root, list(MD5), _fetch), strict=True))
    for name, path in paths.items():
        fetching.check_md5(path, MD5[name], NAME)
    train, test = (read(path) for path in paths.values())
    source = "Netzer et al. 2011, Reading digits in natural images with unsupervised feature learning; SVHN"
    return published.assemble(NAME, train, test, source, "cropped digits, without the `extra` images")


def read(path: Path) -> Part:
    """Images uint8 (N, 3, 32, 32) and labels int64 (N,), 0 .. 9, of a .mat file with X (32, 32, 3, N) and y (N, 1).

    Raises:
        UserError: if it is no such file.
    """
    from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(str(path), variable_names=["X", "y"])
    except Exception as error:  # scipy's reader raises whatever it meets: IndexError, MatReadError, zlib.error, ...
        raise UserError(f"{path}: expected a MATLAB file with X and y, got another ({error}); fetch it again") from None
    x, y = found.get("X"), found.get("y")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise UserError(f"{path}: expected X of uint8 (32, 32, 3, N), got {_said(x)}; fetch it again")
    if not isinstance(y, np.ndarray) or y.shape != (x.shape[3], 1) or not np.isin(y, np.arange(1, 11)).all():
        raise UserError(f"{path}: expected y of ({x.shape[3]}, 1) with classes 1 .. 10, got {_said(y)}; fetch it again")
    return Part(np.ascontiguousarray(x.transpose(3, 2, 0, 1)), y[:, 0].astype(np.int64) % 10)


def _said(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else "none"


def _fetch(folder: Path) -> Path:
    from torchvision.datasets import SVHN  # seconds of import, needed only here

    for split in ("train", "test"):
        SVHN(str(folder), split, download=True)
    return folder

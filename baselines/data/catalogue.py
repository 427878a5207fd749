"""All data sets by name: the ones that ship, and a user's own images by path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from baselines.config import nearest
from baselines.data import (
    across,
    arrays,
    captioned,
    celeba,
    cifar10,
    digits,
    domains,
    enlarged,
    fashion_mnist,
    folder,
    markov_mesh,
    mnist,
    outline,
    puzzle,
    svhn,
)
from baselines.data.dataset import Dataset
from baselines.errors import UserError

DATA_DIR_VARIABLE = "TRILEMMA_DATA"


@dataclass(frozen=True)
class DatasetInfo:
    """One line of the list of data sets."""

    name: str  # as `load` takes it; PATH stands for the user's path
    description: str


_FIXED: dict[str, tuple[str, Callable[[], Dataset]]] = {
    "digits": ("1,797 handwritten digits, 8x8, 17 levels, 10 classes; embedded, no download", digits.load),
    "markov-mesh": (
        "6,500 generated binary images, 8x8; log p(x) known exactly, so a model's gap is a true KL",
        markov_mesh.load,
    ),
}
_FILES: dict[str, tuple[str, Callable[[Path | None], Dataset]]] = {
    module.NAME: (module.DESCRIPTION, module.load) for module in (fashion_mnist, cifar10, svhn, celeba)
}
"""Published files, looked for in the data folder and else downloaded."""
_MADE_OF: dict[str, tuple[str, Callable[[Dataset], Dataset]]] = {
    "large": ("16x16 or 32x32, 256 levels", enlarged.of),
    "puzzle": ("the same, with three key patches of each image in no order and without their places", puzzle.of),
    "outline": ("outlines, and filled digits to be translated to them, without pairs; 256 levels", outline.of),
    "domains": ("RGB, 4 inks, black or white ground, 3 widths of strokes; every translation's truth known", domains.of),
    "captioned": ("RGB, an ink on a ground, with captions; pairs of digit and ink held out", captioned.of),
}
"""Generated from real digits: `digits-large` and `mnist-large`, and so on."""
_BASES = ("digits", "mnist")
_BETWEEN: dict[str, tuple[str, Callable[[Dataset, Dataset], Dataset]]] = {
    "digits-to-mnist": ("mnist at 16x16, and digits to be translated to it; no pairs, and no answers", across.of),
}
"""Made of two data sets, which the name tells."""

_PATHS: dict[str, tuple[str, Callable[[Path, str], Dataset]]] = {
    "folder": ("your own images of one size, grey or RGB (png, jpg, ...), in one folder", folder.load),
    "npz": ("your own uint8 arrays in a .npz or .npy file", arrays.load),
}


def names() -> tuple[DatasetInfo, ...]:
    """Every data set that `load` knows."""
    return (
        *(DatasetInfo(name, line) for name, (line, _) in _FIXED.items()),
        *(DatasetInfo(name, f"70,000 handwritten digits, 28x28; {line}") for name, line in mnist.VARIANTS.items()),
        *(DatasetInfo(name, line) for name, (line, _) in _FILES.items()),
        *(
            DatasetInfo(f"{base}-{kind}", f"made of {base}: {line}")
            for kind, (line, _) in _MADE_OF.items()
            for base in _BASES
        ),
        *(DatasetInfo(name, line) for name, (line, _) in _BETWEEN.items()),
        *(DatasetInfo(f"{scheme}:PATH", line) for scheme, (line, _) in _PATHS.items()),
    )


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set called `name`, such as digits, mnist-static or folder:PATH.

    data_dir: where files like MNIST's lie; None means $TRILEMMA_DATA, and if that is unset the cache folder.

    Raises:
        UserError: if there is no such data set (with the nearest name), or its files are missing or not as expected.
    """
    if name in _FIXED:
        return _FIXED[name][1]()
    if name in mnist.VARIANTS:
        return mnist.load(name, data_dir or _data_dir_from_environment())
    if name in _FILES:
        return _FILES[name][1](data_dir or _data_dir_from_environment())
    if name in _BETWEEN:
        first, _, second = name.partition("-to-")
        return _BETWEEN[name][1](load(first, data_dir), load(second, data_dir))
    base, dash, kind = name.partition("-")
    if dash and base in _BASES and kind in _MADE_OF:
        return _MADE_OF[kind][1](load(base, data_dir))
    scheme, colon, path = name.partition(":")
    if scheme in _PATHS:
        if not path:
            raise UserError(f"data set: expected {scheme}:PATH, got {name!r}; name the path after the colon")
        return _PATHS[scheme][1](Path(path).expanduser(), name)
    hint = nearest(scheme, _PATHS) if colon else nearest(name, (info.name for info in names()))
    raise UserError(f"data set: unknown name {name!r}{hint}")


def _data_dir_from_environment() -> Path | None:
    value = os.environ.get(DATA_DIR_VARIABLE)
    return Path(value).expanduser() if value else None

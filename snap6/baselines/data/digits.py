"""The embedded default: the 8x8 handwritten digits that scikit-learn bundles (Alpaydin and Kaynak 1998, UCI)."""

from __future__ import annotations

import numpy as np

from baselines.data.dataset import Dataset
from baselines.data.splitting import as_split, stratified_order
from baselines.types import ImageShape

LEVELS = 17  # ink counts 0 .. 16 of 4x4 blocks
TEST, VAL = 360, 180  # of 1797 images; the remaining 1257 train


def load() -> Dataset:
    """1797 images (1, 8, 8) with 17 levels and ten classes; no download."""
    from sklearn.datasets import load_digits  # costs a second, which other data sets need not pay

    bunch = load_digits()
    images = np.asarray(bunch.images, dtype=np.uint8)[:, None]
    labels = np.asarray(bunch.target, dtype=np.int64)
    order = stratified_order(labels)
    test, val, train = (as_split(images[index], labels[index]) for index in np.split(order, [TEST, TEST + VAL]))
    return Dataset(
        name="digits",
        shape=ImageShape(1, 8, 8, LEVELS),
        train=train,
        val=val,
        test=test,
        source="Alpaydin and Kaynak 1998, UCI optical recognition of handwritten digits, as bundled by scikit-learn",
        note=f"stratified by class, ordered by SHA-256 of the index: test {len(test)}, val {len(val)}, "
        f"train {len(train)}",
        classes=10,
        stratified=True,
    )

"""Labelled images with a published test split, of whose training images a stratified part is for validation."""

from __future__ import annotations

from baselines.data.dataset import Dataset
from baselines.data.splitting import Part, stratified_order
from baselines.types import ImageShape

VAL = 5_000  # of the published training images


def assemble(
    name: str,
    train: Part,
    test: Part,
    source: str,
    about: str = "",
    classes: int = 10,
    stratified: bool = False,
) -> Dataset:
    """A data set of 256 levels, whose validation split is the first VAL training images of `stratified_order`.

    So the classes' shares are kept, and nothing hangs on the order of the files. Test is as published.

    Args:
        name: of the data set.
        train: all published training images, uint8 (N, C, H, W) and int64 labels (N,).
        test: the published test images.
        source: who made the images.
        about: what was done to them, for the note.
        classes: how many there are.
        stratified: whether the publishers fixed the classes' shares in the test split.
    """
    assert train.labels is not None
    order = stratified_order(train.labels)
    chosen, rest = train.take(order[:VAL]).split(), train.take(order[VAL:]).split()
    channels, height, width = train.images.shape[1:]
    return Dataset(
        name=name,
        shape=ImageShape(channels, height, width),
        train=rest,
        val=chosen,
        test=test.split(),
        source=source,
        note=f"{about}{'; ' if about else ''}val is {len(chosen)} of the published training images, stratified by "
        f"class, ordered by SHA-256 of the index; train the other {len(rest)}; test as published ({len(test.images)})",
        classes=classes,
        stratified=stratified,
    )

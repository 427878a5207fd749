"""Fixed splits without a random generator: SHA-256 orders the images, so every machine and version agrees."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.data.dataset import Split
from baselines.errors import UserError

Images = NDArray[np.uint8]
Index = NDArray[np.int64]

CUT = 0.1  # of the distinct images, for each split that the user does not give


def stratified_order(labels: Index) -> Index:
    """An order of 0 .. N - 1 of which every stretch holds the classes in their overall shares.

    Within its class, images are ranked by the first 8 bytes of SHA-256 of their decimal index; all are then
    sorted by the fractional rank (rank + 1/2) / class size, ties by the hash.

    labels: integers (N,). Returns int64 (N,).
    """
    digests = b"".join(hashlib.sha256(str(i).encode()).digest()[:8] for i in range(len(labels)))
    keys = np.frombuffer(digests, dtype=">u8")
    fraction = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(keys[members])]
        fraction[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((keys, fraction)).astype(np.int64)


def as_split(images: Images, labels: Index | None) -> Split:
    """Tensors of uint8 (N, C, H, W) and int64 (N,); the memory is shared where it is writable and in C order."""
    return Split(
        torch.from_numpy(np.require(images, np.uint8, ["C", "W"])),
        None if labels is None else torch.from_numpy(np.require(labels, np.int64, ["C", "W"])),
    )


@dataclass(frozen=True)
class Part:
    """A user's images uint8 (N, C, H, W), and their labels (N,) where given."""

    images: Images
    labels: Index | None = None

    def take(self, index: Index) -> Part:
        """The images at `index`, in that order."""
        return Part(self.images[index], None if self.labels is None else self.labels[index])

    def split(self) -> Split:
        """As tensors."""
        return as_split(self.images, self.labels)


@dataclass(frozen=True)
class UserSplits:
    """The three splits of a user's own images, and how they came about."""

    train: Split
    val: Split
    test: Split
    note: str


def user_splits(parts: Mapping[str, Part], where: str) -> UserSplits:
    """Complete a user's own parts to three splits, by the content of the images alone.

    The missing ones of test and val are cut from train: train's distinct images, ordered by SHA-256 of their
    pixels, give the first tenth to test, the next to val (only the missing ones). Copies of an image have one
    hash and so never stand on both sides of a cut. Within each split images are ordered by hash too: file names
    matter to nothing.

    parts: train, and perhaps val and test. where: what messages call the data.

    Raises:
        UserError: if train is missing, a part is empty, or there are too few distinct images to cut.
    """
    if "train" not in parts:
        raise UserError(f"{where}: expected images for train, got only {', '.join(sorted(parts))}; give train too")
    for name, part in parts.items():
        if len(part.images) == 0:
            raise UserError(f"{where}: expected images in {name}, got none; add some, or leave {name} out altogether")
    keys = {name: content_keys(part.images) for name, part in parts.items()}
    missing = [name for name in ("test", "val") if name not in parts]
    pieces = _cut(keys["train"], len(missing), where)
    ordered = {name: parts[name].take(np.argsort(keys[name], kind="stable")) for name in parts if name != "train"}
    for name, index in zip([*missing, "train"], pieces, strict=True):
        ordered[name] = parts["train"].take(index)
    splits = {name: part.split() for name, part in ordered.items()}
    note = _split_note(parts, missing, splits) + _leak_note(keys)
    return UserSplits(splits["train"], splits["val"], splits["test"], note)


def content_keys(images: Images) -> NDArray[np.bytes_]:
    """SHA-256 in hex of each image's pixels, channel by channel; bytes of length 64, (N,)."""
    return np.array([hashlib.sha256(x.tobytes()).hexdigest().encode() for x in images], dtype="S64")


def _cut(keys: NDArray[np.bytes_], cuts: int, where: str) -> list[Index]:
    """Indices into `keys`: `cuts` pieces of a tenth of the distinct keys each, then the rest; sorted by key."""
    distinct, which = np.unique(keys, return_inverse=True)
    size = max(1, round(CUT * len(distinct)))
    if len(distinct) <= cuts * size:
        raise UserError(
            f"{where}: expected at least {cuts + 1} different images to split, got {len(distinct)}; add images"
        )
    order = np.argsort(which, kind="stable")
    edges = np.searchsorted(which[order], [size * (i + 1) for i in range(cuts)])
    return [piece.astype(np.int64) for piece in np.split(order, edges)]


def _split_note(parts: Mapping[str, Part], missing: list[str], splits: Mapping[str, Split]) -> str:
    sizes = ", ".join(f"{name} {len(splits[name])}" for name in ("train", "val", "test"))
    if len(missing) == 2:
        return f"split by SHA-256 of the pixels, a tenth each to val and test: {sizes}"
    own = f"the user's own {', '.join(name for name in ('train', 'val', 'test') if name in parts)}"
    cut = f", with a tenth of train cut off for {missing[0]} by SHA-256 of the pixels" if missing else ""
    return f"{own}{cut}: {sizes}"


def _leak_note(keys: Mapping[str, NDArray[np.bytes_]]) -> str:
    """Says how many test images the user's own split also trains or selects on."""
    if "test" not in keys:
        return ""
    seen = np.concatenate([found for name, found in keys.items() if name != "test"])
    leaked = int(np.isin(keys["test"], seen).sum())
    return f"; {leaked} of the test images also occur in train or val" if leaked else ""

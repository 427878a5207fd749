"""A user's NumPy files: layouts, names, levels, and every bad input by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.data.arrays import load
from baselines.data.dataset import Dataset
from baselines.errors import UserError


def images(n: int = 30, *shape: int, levels: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, (n, *(shape or (4, 5))), dtype=np.uint8)


def saved(tmp_path: Path, **arrays: Any) -> Dataset:
    np.savez(tmp_path / "x.npz", **arrays)
    return load(tmp_path / "x.npz", "npz:x.npz")


def test_the_three_layouts_are_one_data_set(tmp_path: Path) -> None:
    grey, colour = images(30), images(30, 4, 5, 3)
    assert tuple(saved(tmp_path, images=grey).shape) == (1, 4, 5, 256)
    kinds = {saved(tmp_path, images=x).fingerprint() for x in (grey, grey[..., None], grey[:, None])}
    assert len(kinds) == 1
    assert tuple(saved(tmp_path, images=colour).shape) == (3, 4, 5, 256)
    kinds = {saved(tmp_path, images=x).fingerprint() for x in (colour, colour.transpose(0, 3, 1, 2))}
    assert len(kinds) == 1


def test_a_single_array_may_have_any_name_or_be_an_npy_file(tmp_path: Path) -> None:
    named = saved(tmp_path, images=images())
    np.save(tmp_path / "x.npy", images())
    assert saved(tmp_path, photographs=images()).fingerprint() == named.fingerprint()
    assert load(tmp_path / "x.npy", "npz:x.npy").fingerprint() == named.fingerprint()
    assert [len(split) for split in (named.train, named.val, named.test)] == [24, 3, 3]


def test_own_splits_with_labels_and_levels_are_kept(tmp_path: Path) -> None:
    parts = {name: images(n, levels=17, seed=n) for name, n in (("train", 20), ("val", 5), ("test", 6))}
    labels = {f"{name}_labels": np.arange(len(x)) % 4 for name, x in parts.items()}
    data = saved(tmp_path, **parts, **labels, levels=17)
    assert data.shape.levels == 17
    assert data.classes == 4
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        assert split.labels is not None
        made = {(image.tobytes(), int(y)) for image, y in zip(split.images.numpy(), split.labels, strict=True)}
        want = {(x.tobytes(), int(y)) for x, y in zip(parts[name], labels[f"{name}_labels"], strict=True)}
        assert made == want


def test_the_note_says_when_256_levels_are_only_assumed(tmp_path: Path) -> None:
    assert (
        "256 levels, since the file has no `levels` (the largest value is 16)"
        in saved(tmp_path, images=np.minimum(images(), 16)).note
    )
    assert "17 levels as the file says" in saved(tmp_path, images=images(levels=17), levels=17).note


class Harmful:
    """Unpickling it would run code."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Harmful, "ran", True)


@pytest.mark.parametrize("suffix", ["npz", "npy", "pkl"])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    objects = np.array([Harmful()], dtype=object)
    if suffix == "npz":
        np.savez(path, images=objects, allow_pickle=True)
    elif suffix == "npy":
        np.save(path, objects, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(objects))
    with pytest.raises(UserError, match="npz:x: expected plain uint8 arrays, got pickled objects"):
        load(path, "npz:x")
    assert not Harmful.ran


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": images().astype(np.float32)}, "images: expected uint8 values 0 .. 255, got float32"),
        ({"images": images().astype(np.int64)}, "expected uint8 values 0 .. 255, got int64"),
        ({"images": images(levels=2) > 0}, "expected uint8 values 0 .. 255, got bool"),
        (
            {"images": images(levels=18), "levels": 17},
            "images: expected values 0 .. 16 for 17 levels, got 17",
        ),
        ({"images": images(), "levels": 1}, "levels: expected one integer from 2 to 256, got"),
        ({"images": images(), "levels": 2.5}, "levels: expected one integer from 2 to 256, got"),
        ({"images": images(5, 4, 6, 2)}, r"C of 1 or 3, got \(5, 4, 6, 2\)"),
        ({"images": images(5, 3, 4, 3)}, r"C of 1 or 3, got \(5, 3, 4, 3\)"),
        ({"images": images(5, 20)}, r"got \(5, 20\)"),
        ({"images": images(0, 4, 4)}, "at least one image"),
        (
            {"images": images(), "labels": np.zeros(29, int)},
            r"labels: expected integers \(30,\), got int64 \(29,\)",
        ),
        ({"images": images(), "labels": np.zeros(30)}, "labels: expected integers"),
        ({"images": images(), "labels": np.full(30, -1)}, "labels: expected classes from 0, got -1"),
        ({"train": images(), "test": images(9, 4, 6)}, r"images of one shape \(C, H, W\), got"),
        ({"train": images(), "tset": images(9)}, "unknown array 'tset'; did you mean 'test'"),
        ({"train": images(), "images": images(9)}, "either images or train, val and test, got both"),
        ({"train": images(), "test_labels": np.zeros(3, int)}, "expected images 'test' for 'test_labels'"),
        (
            {"train": images(), "train_labels": np.zeros(30, int), "test": images(9)},
            "expected labels for all of",
        ),
        ({"labels": np.zeros(3, int)}, "expected an array of images, got only labels"),
        ({"val": images(), "test": images(9)}, "expected images for train, got only test, val"),
        ({"images": images(2)}, "at least 3 different images to split, got 2"),
    ],
)
def test_a_bad_array_is_named_with_what_was_expected_and_got(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"npz:x.npz: .*{message}|npz:x.npz.*{message}"):
        saved(tmp_path, **given)


@pytest.mark.parametrize("damage", ["text", "empty", "cut npz", "flipped npz", "cut npy"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    np.savez(tmp_path / "x.npz", images=images())
    np.save(tmp_path / "x.npy", images())
    whole = (tmp_path / "x.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    (tmp_path / "bad").write_bytes(
        {
            "text": b"some text",
            "empty": b"",
            "cut npz": whole[:-40],
            "flipped npz": bytes(flipped),
            "cut npy": (tmp_path / "x.npy").read_bytes()[:-1],
        }[damage]
    )
    with pytest.raises(UserError, match=r"npz:bad: expected a (sound )?\.npz or \.npy file"):
        load(tmp_path / "bad", "npz:bad")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"npz:absent: cannot be read \(No such file"):
        load(tmp_path / "absent", "npz:absent")

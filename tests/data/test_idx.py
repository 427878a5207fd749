"""The IDX reader: agreement with torchvision's, and every way a file can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets.mnist import read_image_file, read_label_file

from baselines.data import idx
from baselines.errors import UserError


def encode(array: np.ndarray, kind: int = 0x08) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 27), dtype=np.uint8)


def test_images_and_labels_are_read_as_torchvision_reads_them(tmp_path: Path, images: np.ndarray) -> None:
    labels = np.arange(7, dtype=np.uint8)
    (tmp_path / "images").write_bytes(encode(images))
    (tmp_path / "labels").write_bytes(encode(labels))
    ours = idx.parse(idx.read_content(tmp_path / "images"), 3, "images")
    assert np.array_equal(ours, read_image_file(str(tmp_path / "images")).numpy())
    ours = idx.parse(idx.read_content(tmp_path / "labels"), 1, "labels")
    assert np.array_equal(ours, read_label_file(str(tmp_path / "labels")).numpy())


def test_gzip_is_told_by_content_and_not_by_name(tmp_path: Path, images: np.ndarray) -> None:
    (tmp_path / "zipped").write_bytes(gzip.compress(encode(images)))
    (tmp_path / "plain.gz").write_bytes(encode(images))
    for name in ("zipped", "plain.gz"):
        assert np.array_equal(idx.parse(idx.read_content(tmp_path / name), 3, name), images)


@pytest.mark.parametrize("keep", [1, 11, 200, -1])
def test_a_truncated_gzip_is_named(tmp_path: Path, images: np.ndarray, keep: int) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(encode(images))[:keep])
    with pytest.raises(UserError, match=r"cut\.gz: expected"):
        idx.parse(idx.read_content(path), 3, path)


def test_a_gzip_with_a_flipped_bit_is_named(tmp_path: Path, images: np.ndarray) -> None:
    packed = bytearray(gzip.compress(encode(images)))
    packed[len(packed) // 2] ^= 1
    (tmp_path / "bad.gz").write_bytes(packed)
    with pytest.raises(UserError, match=r"bad\.gz: expected a sound gzip file, got a damaged one"):
        idx.read_content(tmp_path / "bad.gz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: cannot be read \(No such file"):
        idx.read_content(tmp_path / "absent")


def test_wrong_contents_say_what_was_expected_and_got(images: np.ndarray) -> None:
    good = encode(images)
    cases = {
        "expected 3796 bytes, got 3795": good[:-1],
        "bytes left over.*expected 3796 bytes, got 3797": good + b"x",
        "expected a header of 16 bytes, got 9": good[:9],
        "first bytes are 00 00 08 03, got 89 50 4e 47": b"\x89PNG" + good,
        "got an empty file": b"",
        "type uint8, got float32": encode(images.astype(">f4"), 0x0D),
        "3 dimensions, got 1; are images and labels swapped": encode(np.zeros(4, np.uint8)),
    }
    for message, content in cases.items():
        with pytest.raises(UserError, match=f"f.idx: .*{message}"):
            idx.parse(content, 3, "f.idx")

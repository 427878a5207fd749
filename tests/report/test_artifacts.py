"""Artifacts are read only from inside the results folder, and only as they were recorded."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baselines.errors import UserError
from bench.record import Artifact
from bench.report.artifacts import Images, read_artifact, read_curve, read_images
from bench.report.grids import enlarged, grid, tile


def put(folder: Path, name: str, data: bytes) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return Artifact("samples", name, hashlib.sha256(data).hexdigest())


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/hostname", "link"])
def test_a_path_that_leaves_the_folder_is_refused_even_with_the_right_hash(tmp_path: Path, path: str) -> None:
    inside = tmp_path / "results"
    inside.mkdir()
    secret = put(tmp_path, "secret", b"secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="leaves the results folder"):
        read_artifact(inside, Artifact("samples", path, secret.sha256))


def test_a_missing_or_changed_file_is_told(tmp_path: Path) -> None:
    artifact = put(tmp_path, "a.bin", b"as recorded")
    assert read_artifact(tmp_path, artifact) == b"as recorded"
    (tmp_path / "a.bin").write_bytes(b"as recordeD")
    with pytest.raises(UserError, match="damaged"):
        read_artifact(tmp_path, artifact)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_artifact(tmp_path, artifact)


@pytest.mark.parametrize(
    "data",
    [
        b"no npz",
        npz(images=np.zeros((2, 1, 8, 8), np.uint8)),
        npz(images=np.zeros((2, 1, 8, 8), np.float32), levels=np.array(17)),
        npz(images=np.zeros((2, 8, 8), np.uint8), levels=np.array(17)),
        npz(images=np.zeros((2, 1, 8, 8), np.uint8), levels=np.array(1)),
        npz(images=np.array([{"pickled": 1}], dtype=object), levels=np.array(17)),
    ],
)
def test_an_npz_of_something_else_is_told_and_never_unpickled(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="expected"):
        read_images(tmp_path, put(tmp_path, "a.npz", data))


def test_a_curve_keeps_its_numbers_and_a_broken_one_is_told(tmp_path: Path) -> None:
    rows = [{"images": 10, "loss": 1.5, "note": "text", "bad": float("nan")}]
    assert read_curve(tmp_path, put(tmp_path, "c.json", json.dumps({"rows": rows}).encode())) == [
        {"images": 10.0, "loss": 1.5}
    ]
    for broken in (b"{", b"[]", b'{"rows": [1]}'):
        with pytest.raises(UserError, match="expected a curve"):
            read_curve(tmp_path, put(tmp_path, "c.json", broken))


def test_a_grid_holds_every_pixel_of_the_first_images_in_order() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 17, (70, 1, 8, 8)).astype(np.uint8)
    canvas = tile(Images(pixels, 17), 8)
    assert canvas.shape == (71, 71)
    for i in (0, 9, 63):
        top, left = 9 * (i // 8), 9 * (i % 8)
        expected = np.rint(pixels[i, 0].astype(float) * 255 / 16)
        np.testing.assert_array_equal(canvas[top : top + 8, left : left + 8], expected)
    assert (canvas[8] == 255).all()  # the line between the images


def test_grids_of_one_image_size_share_a_scale_and_enlarging_repeats_pixels() -> None:
    rng = np.random.default_rng(0)
    few, many = (Images(rng.integers(0, 256, (n, 3, 8, 8)).astype(np.uint8), 256) for n in (3, 100))
    small, large = grid("few", "", few), grid("many", "", many)
    assert small.width == large.width
    assert small.height < large.height
    raw = np.asarray(Image.open(io.BytesIO(large.png)))
    big = np.asarray(Image.open(io.BytesIO(enlarged(large))))
    scale = big.shape[0] // raw.shape[0]
    np.testing.assert_array_equal(big, raw.repeat(scale, 0).repeat(scale, 1))

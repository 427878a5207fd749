"""Images from wherever a user has them: the same pixels by every road, in bounded memory, and clear refusals."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.errors import UserError
from bench.metrics.images import Chosen, Held, ImageSet
from bench.sources import opening
from bench.sources.opening import open_images
from tests.pickled_code import Bomb

Array = np.ndarray


def pixels(n: int = 23, side: int = 9, channels: int = 1, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(256, size=(n, channels, side, side), dtype=np.uint8)


def png(image: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "png")
    return buffer.getvalue()


def as_folder(path: Path, x: Array) -> Path:
    path.mkdir()
    for i, image in enumerate(x):
        (path / f"{i:04d}.png").write_bytes(png(image))
    return path


def as_zip(path: Path, x: Array) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for i, image in enumerate(x):
            archive.writestr(f"{i:04d}.png", png(image))
    return path.with_suffix(".zip")


def as_npy(path: Path, x: Array) -> Path:
    np.save(path.with_suffix(".npy"), x)
    return path.with_suffix(".npy")


def as_npz(path: Path, x: Array) -> Path:
    np.savez(path.with_suffix(".npz"), x)
    return path.with_suffix(".npz")


def as_small_npz(path: Path, x: Array) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), images=x.transpose(0, 2, 3, 1), labels=np.arange(len(x)))
    return path.with_suffix(".npz")


WAYS = [as_folder, as_zip, as_npy, as_npz, as_small_npz]


def all_of(images: ImageSet, size: int = 5) -> torch.Tensor:
    return torch.cat(list(images.batches(size)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_every_road_gives_the_same_pixels_in_the_same_order(
    way: Callable[[Path, Array], Path], channels: int, tmp_path: Path
) -> None:
    x = pixels(channels=channels)
    found = open_images(way(tmp_path / "x", x), "samples")
    assert (len(found), found.shape.chw, found.shape.levels) == (23, (channels, 9, 9), 256)
    for size in (1, 5, 23, 100):
        assert torch.equal(all_of(found, size), torch.from_numpy(x))
        assert [len(b) for b in found.batches(size)][:-1] == [size] * ((23 - 1) // size)


def test_tensors_and_generators_give_theirs() -> None:
    x = torch.from_numpy(pixels())
    assert torch.equal(all_of(open_images(x, "samples")), x)
    for batches in (x.split(4), list(x), (part for part in x.split(7))):
        found = open_images(batches, "samples")
        assert torch.equal(all_of(found), x)
        assert found.content() == open_images(x, "samples").content()


def test_equal_content_means_equal_images(tmp_path: Path) -> None:
    x = pixels()
    other = x.copy()
    other[11, 0, 3, 3] ^= 1
    for i, way in enumerate(WAYS):
        one, same, differs, turned = (
            open_images(way(tmp_path / f"{i}-{j}", images), "samples").content()
            for j, images in enumerate((x, x, other, x[::-1]))
        )
        assert one == same
        assert len({one, differs, turned}) == 3


def test_levels_and_splits_of_an_npz(tmp_path: Path) -> None:
    x = pixels() % 17
    np.savez(tmp_path / "x.npz", train=x, test=x[:5], levels=17)
    found = open_images(tmp_path / "x.npz", "samples")
    assert (len(found), found.shape.levels) == (5, 17)


def test_a_data_set_by_name_gives_its_test_split_or_the_one_named() -> None:
    test, train = open_images("digits", "reference"), open_images("digits:train", "reference")
    assert len(test) == 360
    assert len(train) > 1000
    assert test.labels is not None
    assert test.stratified


def test_grey_files_beside_coloured_ones_become_rgb(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "x", pixels(4, channels=3))
    grey = pixels(1)[0]
    (folder / "9.png").write_bytes(png(grey))
    found = all_of(open_images(folder, "samples"))
    assert found.shape == (5, 3, 9, 9)
    assert torch.equal(found[4], torch.from_numpy(grey).expand(3, -1, -1))


def test_entries_of_a_zip_stay_in_it(tmp_path: Path) -> None:
    x = pixels(3)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name, image in zip(("../../a.png", "/b.png", "c/../../d.png"), x, strict=True):
            archive.writestr(name, png(image))
        archive.writestr("__MACOSX/._a.png", b"junk")
        archive.writestr("read.me", b"no image")
    before = sorted(tmp_path.parent.rglob("*"))
    assert len(all_of(open_images(tmp_path / "evil.zip", "samples"))) == 3
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("way", [as_npy, as_npz, as_small_npz])
def test_memory_is_bounded_by_the_batch(way: Callable[[Path, Array], Path], tmp_path: Path) -> None:
    path = way(tmp_path / "x", np.zeros((20_000, 1, 32, 32), np.uint8))  # 20 MB
    tracemalloc.start()
    found = open_images(path, "samples")
    assert sum(len(batch) for batch in found.batches(100)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(300 << 20))
    return path / "bomb.zip"


def encrypted(path: Path) -> Path:
    as_zip(path / "x", pixels(2))
    data = bytearray((path / "x.zip").read_bytes())
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + flag] |= 1
            at = data.find(mark, at + 4)
    (path / "x.zip").write_bytes(data)
    return path / "x.zip"


def cut(path: Path) -> Path:
    data = as_npy(path / "x", pixels()).read_bytes()
    (path / "x.npy").write_bytes(data[:-50])
    return path / "x.npy"


def flipped(path: Path) -> Path:
    as_small_npz(path / "x", pixels(200))
    data = bytearray((path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (path / "x.npz").write_bytes(data)
    return path / "x.npz"


def mixed(path: Path) -> Path:
    folder = as_folder(path / "x", pixels(3))
    (folder / "z.png").write_bytes(png(pixels(1, side=8)[0]))
    return folder


def truncated_png(path: Path) -> Path:
    folder = as_folder(path / "x", pixels(3))
    (folder / "0001.png").write_bytes((folder / "0001.png").read_bytes()[:30])
    return folder


def empty_png(path: Path) -> Path:
    folder = as_folder(path / "x", pixels(3))
    (folder / "0001.png").write_bytes(b"")
    return folder


def one_name_twice(path: Path) -> Path:
    first, second = (png(image) for image in pixels(2))
    with zipfile.ZipFile(path / "x.zip", "w") as archive:
        archive.writestr("a.png", first)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", second)
    return path / "x.zip"


def written(path: Path, **arrays: object) -> Path:
    np.savez(path / "x.npz", **arrays)  # type: ignore[arg-type]
    return path / "x.npz"


def plain(path: Path, name: str, data: bytes) -> Path:
    (path / name).write_bytes(data)
    return path / name


def empty(path: Path) -> Path:
    (path / "x").mkdir()
    return path / "x"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (bomb, "claims 314,572,800 bytes"),
        (encrypted, "cannot be read"),
        (cut, "cut short: expected"),
        (flipped, "damaged|sound"),
        (mixed, "expected images of one size, got .* of 9x9 and .* of 8x8"),
        (truncated_png, "0001.png: cannot be read as an image"),
        (empty_png, r"0001.png: cannot be read as an image \(it is none of PNG, JPEG, .*; mend or remove it"),
        (one_name_twice, "expected entries of different names, got a.png twice"),
        (empty, "found none"),
        (lambda p: as_npy(p / "x", pixels(0)), "with one image or more"),
        (
            lambda p: as_npy(p / "x", pixels().astype(np.float32)),
            r"uint8 pixels, got float32; convert them: \(255 \* x\).*\[0, 1\].*\[-1, 1\]",
        ),
        (lambda p: as_npy(p / "x", pixels() > 9), r"expected uint8 pixels, got bool; convert them: 255 \* x"),
        (lambda p: as_npy(p / "x", pixels().astype(int)), r"got int64; convert them: x.astype\('uint8'\), if they lie"),
        (lambda p: as_npy(p / "x", np.asfortranarray(pixels())), "C order"),
        (lambda p: as_npy(p / "x", np.zeros((4, 5, 6, 7), np.uint8)), "expected 1 or 3 channels"),
        (lambda p: written(p, a=pixels(), b=pixels()), "expected one array of images"),
        (lambda p: written(p, images=pixels(), levels=17), "expected values 0 .. 16"),
        (lambda p: written(p, images=pixels(), levels=1.5), "levels: expected one integer"),
        (lambda p: written(p, images=np.array([Bomb()], object)), "pickled objects"),
        (lambda p: plain(p, "x.npy", pickle.dumps(Bomb())), "expected a sound .npy array"),
        (lambda p: plain(p, "x.npz", b"junk"), "expected a sound .npz file"),
        (lambda p: plain(p, "x.zip", b"junk"), "expected a sound zip file"),
        (lambda p: plain(p, "x.txt", b"junk"), "expected a folder of images, or a file"),
        (lambda p: p / "nothing", "no folder and no file"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Callable[[Path], Path], told: str, tmp_path: Path) -> None:
    path = make(tmp_path)

    def read() -> None:
        list(open_images(path, "samples").batches(10))

    with pytest.raises(UserError, match=told):
        read()


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.zeros(3, 1, 4, 4), "expected uint8"),
        (torch.zeros(3, 2, 4, 4, dtype=torch.uint8), "C of 1 or 3"),
        (torch.full((3, 1, 4, 4), 17, dtype=torch.uint8), "expected values 0 .. 16 for 17 levels, got 17"),
        ([], "expected images, got none"),
        ([torch.zeros(2, 1, 4, 4)], "expected uint8 tensors"),
        ([torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 5, 5, dtype=torch.uint8)], "of one shape"),
    ],
)
def test_tensors_that_cannot_be_used_are_refused(images: opening.Images, told: str) -> None:
    with pytest.raises(UserError, match=told):
        open_images(images, "samples", levels=17)


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(UserError, match="samples: expected a folder, a file or a data set by name, got an empty name"):
        open_images("", "samples")


def test_chosen_images_are_those_of_their_indices() -> None:
    x = torch.from_numpy(pixels(50))
    base = open_images(x, "train images")
    index = np.array([0, 3, 4, 17, 49])
    chosen = Chosen(base, index, "some")
    for size in (1, 2, 5, 60):
        assert torch.equal(all_of(chosen, size), x[index])
    assert len({chosen.content(), base.content(), Chosen(base, index[:4], "some").content()}) == 3


def test_held_images_changed_in_place_have_another_content() -> None:
    held = open_images(torch.from_numpy(pixels()), "samples")
    assert isinstance(held, Held)
    before = held.content()
    held.images[0, 0, 0, 0] += 1
    assert held.content() != before

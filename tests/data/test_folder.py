"""A user's folder of images: modes, sizes, splits, and every bad input by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baselines.data import arrays, folder
from baselines.errors import UserError


def pixels(seed: int, channels: int = 1) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 256, (6, 5, channels), dtype=np.uint8)
    return made[..., 0] if channels == 1 else made


def fill(root: Path, n: int, first: int = 0, channels: int = 1, suffix: str = "png") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        Image.fromarray(pixels(i, channels)).save(root / f"{i}.{suffix}")
    return root


def test_a_folder_and_an_array_of_the_same_images_are_the_same_data(tmp_path: Path) -> None:
    fill(tmp_path / "images" / "a", 15, channels=3)
    fill(tmp_path / "images" / "b", 25, 15, channels=3, suffix="bmp")
    np.savez(tmp_path / "images.npz", np.stack([pixels(i, 3) for i in range(40)]))
    data = folder.load(tmp_path / "images", "folder:x")
    assert tuple(data.shape) == (3, 6, 5, 256)
    assert [len(split) for split in (data.train, data.val, data.test)] == [32, 4, 4]
    assert data.fingerprint() == arrays.load(tmp_path / "images.npz", "npz:x").fingerprint()


def test_renaming_the_files_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "a", 20)
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for i, path in enumerate(sorted((tmp_path / "a").iterdir())):
        shutil.copy(path, tmp_path / "b" / "deep" / f"{97 - i}.PNG")
    assert folder.load(tmp_path / "a", "x").fingerprint() == folder.load(tmp_path / "b", "x").fingerprint()


def test_the_users_own_split_is_kept(tmp_path: Path) -> None:
    for first, name in enumerate(("train/cats", "train/dogs", "valid", "test")):
        fill(tmp_path / name, 6, 10 * first)
    data = folder.load(tmp_path, "x")
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 6, 6]
    found = sorted(image.tobytes() for image in data.test.images.numpy())
    assert found == sorted(pixels(i).tobytes() for i in range(30, 36))
    assert "own train, val, test" in data.note


def test_a_missing_val_is_cut_from_train_and_the_note_says_so(tmp_path: Path) -> None:
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 6, 20)
    data = folder.load(tmp_path, "x")
    assert [len(split) for split in (data.train, data.val, data.test)] == [18, 2, 6]
    assert "a tenth of train cut off for val by SHA-256" in data.note


def test_images_beside_the_users_own_split_are_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "train", 6)
    fill(tmp_path / "tets", 6, 6)
    with pytest.raises(UserError, match=r"inside train, val and test.*got .*tets/10\.png"):
        folder.load(tmp_path, "x")


def test_only_a_test_folder_is_no_data_to_train_on(tmp_path: Path) -> None:
    fill(tmp_path / "test", 6)
    with pytest.raises(UserError, match="expected images for train, got only test"):
        folder.load(tmp_path, "x")


def test_grey_palette_and_one_bit_images_stay_grey(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    ramp = Image.fromarray(pixels(50), mode="P")
    ramp.putpalette([value for level in range(256) for value in (255 - level,) * 3])
    ramp.save(tmp_path / "palette.png")
    Image.fromarray(pixels(51) > 127).save(tmp_path / "bits.png")
    data = folder.load(tmp_path, "x")
    assert data.shape.channels == 1
    split_rows = {x.tobytes() for s in (data.train, data.val, data.test) for x in s.images.numpy()}
    assert (255 - pixels(50)).tobytes() in split_rows
    assert np.where(pixels(51) > 127, 255, 0).astype(np.uint8).tobytes() in split_rows


def test_one_colour_image_makes_all_rgb_and_palettes_are_resolved(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    palette = np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(pixels(60), mode="P")
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "palette.png")
    data = folder.load(tmp_path, "x")
    assert data.shape.channels == 3
    found = {x.tobytes() for s in (data.train, data.val, data.test) for x in s.images.numpy()}
    assert np.ascontiguousarray(palette[pixels(60)].transpose(2, 0, 1)).tobytes() in found
    assert np.stack([pixels(0)] * 3).tobytes() in found


def test_an_opaque_alpha_channel_is_dropped_and_a_transparent_pixel_refused(tmp_path: Path) -> None:
    fill(tmp_path, 4, channels=3)
    colours = np.dstack([pixels(70, 3), np.full((6, 5), 255, np.uint8)])
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    data = folder.load(tmp_path, "x")
    found = {x.tobytes() for s in (data.train, data.val, data.test) for x in s.images.numpy()}
    assert np.ascontiguousarray(pixels(70, 3).transpose(2, 0, 1)).tobytes() in found
    colours[2, 3, 3] = 254
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    with pytest.raises(UserError, match=r"alpha\.png: expected an opaque image"):
        folder.load(tmp_path, "x")


def test_every_advertised_suffix_can_be_read(tmp_path: Path) -> None:
    for i, suffix in enumerate(sorted(folder.SUFFIXES)):
        Image.fromarray(pixels(i) > 127 if suffix == ".pbm" else pixels(i)).save(tmp_path / f"{i}{suffix}")
    data = folder.load(tmp_path, "x")
    assert sum(map(len, (data.train, data.val, data.test))) == len(folder.SUFFIXES) == 11


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_an_unreadable_image_is_named(tmp_path: Path, damage: str) -> None:
    fill(tmp_path, 4)
    bad = tmp_path / "bad.png"
    whole = (tmp_path / "0.png").read_bytes()
    bad.write_bytes({"cut": whole[: len(whole) - 30], "text": b"no image", "empty": b""}[damage])
    with pytest.raises(UserError, match=r"bad\.png: cannot be read as an image"):
        folder.load(tmp_path, "x")


def test_mixed_sizes_name_two_files_and_their_sizes(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    Image.new("L", (7, 9)).save(tmp_path / "z.png")
    with pytest.raises(UserError, match=r"0\.png of 5x6 and .*z\.png of 7x9"):
        folder.load(tmp_path, "x")


def test_depths_and_colour_spaces_that_would_be_mangled_are_refused(tmp_path: Path) -> None:
    deep, cmyk = tmp_path / "deep", tmp_path / "cmyk"
    fill(deep, 3)
    fill(cmyk, 3)
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(deep / "z.png")
    Image.new("CMYK", (5, 6)).save(cmyk / "z.jpg")
    with pytest.raises(UserError, match=r"z\.png: expected 8-bit grey or RGB, got mode I;16"):
        folder.load(deep, "x")
    with pytest.raises(UserError, match=r"z\.jpg: expected 8-bit grey or RGB, got mode CMYK"):
        folder.load(cmyk, "x")


def test_an_animation_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    frames = [Image.fromarray(pixels(i)) for i in range(3)]
    frames[0].save(tmp_path / "z.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"z\.gif: expected a still image, got 3 frames"):
        folder.load(tmp_path, "x")


def test_a_folder_without_images_or_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(UserError, match=r"x: expected images \(.*\.png.*found none"):
        folder.load(tmp_path, "x")
    with pytest.raises(UserError, match="expected an existing folder"):
        folder.load(tmp_path / "absent", "x")


def test_hidden_files_are_left_out_other_files_are_counted_and_links_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "real", 6)
    root = fill(tmp_path / "root", 6, 6)
    (root / "linked").symlink_to(tmp_path / "real")
    (root / "linked_up").symlink_to(root)
    (root / "._0.png").write_bytes(b"a resource fork")
    (root / "notes.txt").write_text("notes")
    data = folder.load(root, "x")
    assert sum(map(len, (data.train, data.val, data.test))) == 12
    assert "1 files that are no images left out" in data.note

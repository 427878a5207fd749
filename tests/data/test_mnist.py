"""MNIST: finding, verifying and downloading its files, and what tells the binarised variants apart."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from baselines.data import mnist
from baselines.errors import UserError

real_data = pytest.mark.skipif(not os.environ.get("TRILEMMA_DATA"), reason="TRILEMMA_DATA names no folder")


def encode(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def small() -> mnist.Published:
    """400 training and 100 test images of 16x16 in which every intensity occurs 400 and 100 times."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    draw = np.random.default_rng(0)
    mixed = [draw.permuted(np.tile(ramp.ravel(), (n, 1)), axis=1).reshape(n, 16, 16) for n in (400, 100)]
    labels = [np.arange(n, dtype=np.uint8) % 10 for n in (400, 100)]
    return mnist.Published(mixed[0], labels[0], mixed[1], labels[1])


def write_files(folder: Path, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    raw = small()
    arrays = (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels)
    for name, array in zip(mnist.FILES, arrays, strict=True):
        content = encode(array)
        (folder / f"{name}.gz" if packed else folder / name).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_files_are_found_in_the_usual_places(tmp_path: Path, place: str, packed: bool) -> None:
    write_files(tmp_path / place, packed)
    found = mnist.find_files(tmp_path)
    assert list(found) == list(mnist.FILES)
    assert all(path.is_file() and path.parent == tmp_path / place for path in found.values())


def test_files_that_are_not_the_published_ones_are_refused_by_name_and_checksum(tmp_path: Path) -> None:
    write_files(tmp_path)
    name = "train-images-idx3-ubyte"
    got = hashlib.sha256(encode(small().train_images)).hexdigest()
    with pytest.raises(
        UserError, match=rf"{name}\.gz: wrong checksum: expected SHA-256 {mnist.FILES[name]}.*got {got}"
    ):
        mnist.load("mnist", tmp_path)


def test_a_missing_file_of_the_four_is_named(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="expected the 4 files of MNIST, t10k-labels-idx1-ubyte"):
        mnist.find_files(tmp_path)


def test_a_data_folder_that_does_not_exist_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected an existing folder, got .*typo"):
        mnist.find_files(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A loopback server of small files, in the place of torchvision's mirrors and checksums."""
    folder = write_files(tmp_path / "served")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{found.server_address[1]}/"])
        sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
        monkeypatch.setattr(MNIST, "resources", sums)
        yield folder
        found.shutdown()


def test_absent_files_are_downloaded_whole_and_stdout_stays_clean(
    tmp_path: Path, server: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = mnist.find_files(None)
    target = tmp_path / "cache" / "trilemma" / "mnist"
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in mnist.FILES)
    for path in found.values():
        assert path.read_bytes() == (server / path.name).read_bytes()
    assert capsys.readouterr().out == ""


def test_a_broken_download_leaves_nothing_behind(tmp_path: Path, server: Path) -> None:
    (server / "t10k-labels-idx1-ubyte.gz").write_bytes(b"changed on the way")
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"mnist: not found in .*, and the download failed"):
        mnist.find_files(tmp_path / "data")
    assert list((tmp_path / "data" / "mnist").iterdir()) == []


def test_without_a_network_the_error_says_where_to_put_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):  # the discard port of loopback: refused at once
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UserError, match=r"download failed \(.*\)\. Expected the files train-images.*TRILEMMA_DATA"):
        mnist.find_files(tmp_path)


def test_the_split_is_disjoint_balanced_and_leaves_the_published_test_as_it_is() -> None:
    raw = small()
    data = mnist.assemble("mnist", raw, val=40)
    assert [len(split) for split in (data.train, data.val, data.test)] == [360, 40, 100]
    assert data.val.labels is not None
    assert torch.bincount(data.val.labels).tolist() == [4] * 10
    together = [image.tobytes() for image in data.development.numpy()]
    assert sorted(together) == sorted(image.tobytes() for image in raw.train_images)
    assert np.array_equal(data.test.images.numpy()[:, 0], raw.test_images)
    assert data.shape.levels == 256


def test_threshold_is_one_from_128_on() -> None:
    data = mnist.assemble("mnist-threshold", small(), val=40)
    grey = mnist.assemble("mnist", small(), val=40)
    assert torch.equal(data.train.images, (grey.train.images > 127).to(torch.uint8))
    assert data.shape.levels == 2


def test_static_pixels_are_one_with_probability_intensity_over_255() -> None:
    data = mnist.assemble("mnist-static", small(), val=40)
    grey = mnist.assemble("mnist", small(), val=40)
    ones = torch.bincount(grey.development.flatten(), weights=data.development.flatten().double(), minlength=256)
    p = torch.arange(256) / 255.0
    z = (ones - 400 * p) / (400 * p * (1 - p)).sqrt()
    assert ones[0] == 0
    assert ones[255] == 400
    inner = z[1:255]
    assert inner.abs().max() < 4.5  # 254 standard normal numbers
    assert 0.75 < float(inner.square().mean()) < 1.3  # as binomials scatter, no more and no less


def test_static_is_one_draw_whatever_the_split() -> None:
    by_image: dict[bytes, bytes] = {}
    for val in (40, 150):
        data, grey = (mnist.assemble(name, small(), val=val) for name in ("mnist-static", "mnist"))
        for image, key in zip(data.development.numpy(), grey.development.numpy(), strict=True):
            assert by_image.setdefault(key.tobytes(), image.tobytes()) == image.tobytes()
    assert len(by_image) == 400
    assert data.train.intensities is None


def test_dynamic_redraws_training_images_only_and_scores_on_the_static_test() -> None:
    data, static, grey = (mnist.assemble(n, small(), val=40) for n in ("mnist-dynamic", "mnist-static", "mnist"))
    assert data.train.intensities is not None
    assert torch.equal(data.train.intensities, grey.train.images)
    assert data.val.intensities is None
    assert data.test.intensities is None
    assert torch.equal(data.test.images, static.test.images)
    generator, index = torch.Generator().manual_seed(0), torch.arange(50)
    looks = torch.stack([data.train.take(index, generator) for _ in range(400)])
    assert not torch.equal(looks[0], looks[1])
    p = grey.train.images[:50].double() / 255
    z = (looks.double().mean(0) - p)[(p > 0) & (p < 1)] / (p * (1 - p) / 400).sqrt()[(p > 0) & (p < 1)]
    assert abs(float(z.mean())) < 0.05  # 12,700 numbers: standard error .009
    assert abs(float(z.square().mean()) - 1) < 0.08


def test_the_four_variants_are_four_data_sets() -> None:
    made = [mnist.assemble(name, small(), val=40) for name in mnist.VARIANTS]
    assert len({data.fingerprint() for data in made}) == len({data.note for data in made}) == 4


@real_data
def test_the_real_files_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    found = mnist.find_files(Path(os.environ["TRILEMMA_DATA"]))
    raw = mnist.read_published(found)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, path in found.items():
        (folder / name).write_bytes(mnist.idx.read_content(path))
    for train, images, labels in (
        (True, raw.train_images, raw.train_labels),
        (False, raw.test_images, raw.test_labels),
    ):
        theirs = MNIST(str(tmp_path), train=train)
        assert np.array_equal(images, theirs.data.numpy())
        assert np.array_equal(labels, theirs.targets.numpy())


@real_data
def test_a_flipped_pixel_in_the_real_files_is_refused(tmp_path: Path) -> None:
    for name, path in mnist.find_files(Path(os.environ["TRILEMMA_DATA"])).items():
        content = bytearray(mnist.idx.read_content(path))
        if name == "t10k-images-idx3-ubyte":
            content[5000] ^= 1
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: wrong checksum"):
        mnist.load("mnist", tmp_path)


@real_data
def test_the_real_splits_have_the_documented_sizes_and_shares() -> None:
    data = mnist.load("mnist-static", Path(os.environ["TRILEMMA_DATA"]))
    assert [len(split) for split in (data.train, data.val, data.test)] == [55_000, 5_000, 10_000]
    assert data.val.labels is not None
    assert data.train.labels is not None
    shares = torch.bincount(torch.cat([data.train.labels, data.val.labels])) / 60_000
    assert (torch.bincount(data.val.labels) - 5_000 * shares).abs().max() <= 1.5

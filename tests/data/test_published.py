"""Published data sets past MNIST: read from small files in the real formats, and others refused."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as published_by_torchvision

from baselines.data import catalogue, celeba, cifar10, fashion_mnist, fetching, mnist, published, svhn
from baselines.errors import MissingDataError, UserError
from bench.metrics.extractors import choose_extractor
from tests.pickled_code import Bomb

EACH = 6  # images of a class in a small file


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "VAL", 20)
    monkeypatch.setattr(cifar10, "IMAGES", 10 * EACH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy"):  # the discard port of loopback: refused at once
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# CIFAR-10


def cifar_files() -> dict[str, bytes]:
    """Six files of label, red, green and blue plane, each class alike often in a mixed order."""
    files = {}
    for i, name in enumerate((*cifar10.TRAIN, cifar10.TEST)):
        labels = np.random.default_rng(i).permutation(np.arange(10 * EACH) % 10).astype(np.uint8)
        files[name] = np.concatenate([labels[:, None], pixels(10 * EACH, 3072, seed=i)], 1).tobytes()
    return files


def cifar_archive(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name if "/" in name else f"{cifar10.FOLDER}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


@pytest.mark.parametrize("place", ["", "cifar10"])
def test_cifar_is_read_from_its_archive_plane_by_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    archive = cifar_archive(tmp_path / place / cifar10.ARCHIVE, cifar_files())
    monkeypatch.setattr(cifar10, "MD5", md5(archive))
    data = catalogue.load("cifar10", tmp_path)
    assert (data.shape, data.classes, data.stratified) == ((3, 32, 32, 256), 10, True)
    assert [len(split) for split in (data.train, data.val, data.test)] == [50 * EACH - 20, 20, 10 * EACH]
    record = np.frombuffer(cifar_files()[cifar10.TEST], np.uint8).reshape(-1, 3073)[7]
    assert data.test.labels is not None
    assert int(data.test.labels[7]) == record[0]
    assert np.array_equal(data.test.images[7].numpy(), record[1:].reshape(3, 32, 32))
    assert data.val.labels is not None
    assert torch.bincount(data.val.labels).tolist() == [2] * 10
    every = {image.tobytes() for image in data.development.numpy()}
    assert len(every) == 50 * EACH, "the premise: all images differ, so no image stands in two splits"


def test_unpacked_cifar_has_the_same_content_and_says_that_it_has_no_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cifar_archive(tmp_path / "one" / cifar10.ARCHIVE, cifar_files())
    monkeypatch.setattr(cifar10, "MD5", md5(archive))
    folder = tmp_path / "two" / cifar10.FOLDER
    folder.mkdir(parents=True)
    for name, content in cifar_files().items():
        (folder / name).write_bytes(content)
    packed, unpacked = (catalogue.load("cifar10", tmp_path / place) for place in ("one", "two"))
    assert packed.fingerprint() == unpacked.fingerprint()
    assert "no checksum" in unpacked.note
    assert "no checksum" not in packed.note
    (folder / cifar10.TEST).write_bytes((folder / cifar10.TEST).read_bytes()[:-1])
    with pytest.raises(
        UserError, match=r"test_batch\.bin: expected 60 records of 3073 bytes, 184380 in all, got 184379"
    ):
        catalogue.load("cifar10", tmp_path / "two")
    (folder / cifar10.TEST).write_bytes((folder / cifar10.TRAIN[0]).read_bytes()[:3073] * (10 * EACH))
    with pytest.raises(UserError, match="expected 6 images of each class"):
        catalogue.load("cifar10", tmp_path / "two")


def test_another_cifar_archive_is_refused_by_its_checksum(tmp_path: Path) -> None:
    archive = cifar_archive(tmp_path / cifar10.ARCHIVE, cifar_files())
    with pytest.raises(UserError, match=rf"wrong checksum: expected MD5 {cifar10.MD5}, got {md5(archive)}"):
        catalogue.load("cifar10", tmp_path)


def test_no_path_of_an_archive_leaves_it_and_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = cifar_files()
    hostile = {"../../outside.bin": b"x" * 10, "/outside.bin": b"x" * 10, **files}
    archive = cifar_archive(tmp_path / "data" / "in" / cifar10.ARCHIVE, hostile)
    monkeypatch.setattr(cifar10, "MD5", md5(archive))
    catalogue.load("cifar10", archive.parent)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive], "nothing is unpacked anywhere"
    secret = tmp_path / "secret"
    secret.write_bytes(files.pop(cifar10.TEST))
    archive = cifar_archive(archive, files, {cifar10.TEST: str(secret)})
    monkeypatch.setattr(cifar10, "MD5", md5(archive))
    with pytest.raises(UserError, match=r"expected test_batch\.bin of 184380 bytes each .* got none"):
        catalogue.load("cifar10", archive.parent)


def test_a_cut_archive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = cifar_archive(tmp_path / cifar10.ARCHIVE, cifar_files())
    archive.write_bytes(archive.read_bytes()[:5000])
    monkeypatch.setattr(cifar10, "MD5", md5(archive))
    with pytest.raises(UserError, match=r"expected a sound \.tar\.gz archive, got a damaged one"):
        catalogue.load("cifar10", tmp_path)


def test_the_pickled_version_of_cifar_is_never_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(MissingDataError, match=r"cifar-10-batches-py is there, but .* pickles"):
        catalogue.load("cifar10", tmp_path)


def test_absent_cifar_is_downloaded_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = cifar_archive(tmp_path / "served" / cifar10.ARCHIVE, cifar_files())
    (tmp_path / "data").mkdir()
    with serve(served.parent) as address:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(cifar10, "URL", f"{address}/{cifar10.ARCHIVE}")
        with pytest.raises(MissingDataError, match=r"cifar10: not found in .* TRILEMMA_DATA"):  # another checksum
            catalogue.load("cifar10", tmp_path / "data")
        assert list((tmp_path / "data" / "cifar10").iterdir()) == []
        monkeypatch.setattr(cifar10, "MD5", md5(served))
        first = catalogue.load("cifar10", tmp_path / "data").fingerprint()
    assert catalogue.load("cifar10", tmp_path / "data").fingerprint() == first, "and then it is there"


class serve:
    """A loopback server of a folder, in the place of the publishers'."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


# Fashion-MNIST


def fashion_files(folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool = True) -> Path:
    folder.mkdir(parents=True)
    sums = {}
    for i, name in enumerate(fashion_mnist.MD5):
        shape = (100 if "train" in name else 50, 28, 28)
        array = pixels(*shape, seed=i) if "images" in name else np.arange(shape[0], dtype=np.uint8) % 10
        content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
        sums[name] = md5(path)
    monkeypatch.setattr(fashion_mnist, "MD5", sums)
    return folder


@pytest.mark.parametrize(
    ("place", "packed"), [("fashion-mnist", True), ("FashionMNIST/raw", True), ("FashionMNIST/raw", False)]
)
def test_fashion_mnist_is_read_from_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, packed: bool
) -> None:
    fashion_files(tmp_path / place, monkeypatch, packed)
    data = catalogue.load("fashion-mnist", tmp_path)
    assert (data.shape, data.classes) == ((1, 28, 28, 256), 10)
    assert [len(split) for split in (data.train, data.val, data.test)] == [80, 20, 50]
    assert np.array_equal(data.test.images.numpy()[:, 0], pixels(50, 28, 28, seed=2))
    assert ("no checksum" in data.note) == (not packed)


def test_fashion_mnist_is_never_taken_for_mnist_nor_mnist_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fashion_files(tmp_path / "FashionMNIST" / "raw", monkeypatch, packed=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"MNIST's, in the folder itself")
    catalogue.load("fashion-mnist", tmp_path)
    name = "t10k-images-idx3-ubyte"
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setitem(mnist.FILES, name, digest)  # as if it were MNIST's file
    with pytest.raises(UserError, match="expected Fashion-MNIST, got MNIST's file of the same name"):
        catalogue.load("fashion-mnist", tmp_path)


def test_the_checksums_are_those_that_torchvision_verifies() -> None:
    theirs = dict(published_by_torchvision.FashionMNIST.resources)
    assert theirs == {f"{name}.gz": value for name, value in fashion_mnist.MD5.items()}
    lists = published_by_torchvision.SVHN.split_list
    assert {lists[split][1]: lists[split][2] for split in ("train", "test")} == svhn.MD5
    faces = {name: value for _, value, name in published_by_torchvision.CelebA.file_list}
    assert {name: faces[name] for name in celeba.MD5} == celeba.MD5


# SVHN


def svhn_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Two MATLAB files; returns the training images as the file holds them, (32, 32, 3, N)."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for i, name in enumerate(svhn.MD5):
        n = 100 - 50 * i
        arrays[name] = pixels(32, 32, 3, n, seed=i)
        labels = (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]
        savemat(folder / name, {"X": arrays[name], "y": labels}, do_compression=True)
    monkeypatch.setattr(svhn, "MD5", {name: md5(folder / name) for name in arrays})
    return arrays["test_32x32.mat"]


@pytest.mark.parametrize("place", ["", "svhn", "SVHN"])
def test_svhn_is_read_from_matlab_files_with_class_10_as_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    stored = svhn_files(tmp_path / place, monkeypatch)
    data = catalogue.load("svhn", tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [80, 20, 50]
    assert np.array_equal(data.test.images[3].numpy().transpose(1, 2, 0), stored[..., 3])
    assert data.test.labels is not None
    assert data.test.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": pixels(32, 32, 3, 4)}, "expected y"),
        ({"X": pixels(32, 32, 3, 4), "y": np.full((4, 1), 11)}, "classes 1 .. 10"),
        ({"X": pixels(4, 3, 32, 32), "y": np.ones((4, 1))}, r"expected X of uint8 \(32, 32, 3, N\)"),
        ({"X": pixels(32, 32, 3, 4) / 255, "y": np.ones((4, 1))}, "got float64"),
    ],
)
def test_a_matlab_file_of_something_else_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    savemat(tmp_path / "x.mat", arrays)
    with pytest.raises(UserError, match=message):
        svhn.read(tmp_path / "x.mat")


def test_what_is_no_matlab_file_is_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    for content in (pickle.dumps(Bomb()), b"", b"MATLAB 5.0 MAT-file" + b"\0" * 200):
        (tmp_path / "x.mat").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.mat: expected"):
            svhn.read(tmp_path / "x.mat")


# CelebA

FACES = 24


def face(i: int) -> Image.Image:
    """A smooth picture of 178x218 with a level of its own in the middle."""
    y, x = np.mgrid[:218, :178]
    planes = [10 * i + 0 * x, x, y]
    return Image.fromarray(np.stack(planes, 2).clip(0, 255).astype(np.uint8))


def celeba_files(folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool = True) -> Path:
    folder.mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(FACES)]
    heads = ["5_o_Clock_Shadow", "Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"]
    rows = [
        [-1, *(1 if i % 4 == k else -1 for k in range(3)), 1 if i % 2 else -1, 1 if i % 3 else -1] for i in range(24)
    ]
    table = [f"{name} {' '.join(f'{v:2d}' for v in row)}" for name, row in zip(names, rows, strict=True)]
    (folder / celeba.LIST).write_text("\n".join([str(FACES), " ".join(heads), *table]) + "\n")
    parts = [0] * 12 + [1] * 6 + [2] * 6
    lines = "".join(f"{name} {part}\n" for name, part in zip(names, parts, strict=True))
    (folder / celeba.PARTITION).write_text(lines)
    contents = {}
    for i, name in enumerate(names):
        stream = io.BytesIO()
        face(i).save(stream, "JPEG", quality=95)
        contents[f"{celeba.FOLDER}/{name}"] = stream.getvalue()
    if packed:
        with zipfile.ZipFile(folder / celeba.ZIP, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        (folder / celeba.FOLDER).mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    sums = {name: md5(folder / name) for name in celeba.MD5 if (folder / name).is_file()}
    monkeypatch.setattr(celeba, "MD5", {**celeba.MD5, **sums})
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_celeba_is_cropped_resized_and_split_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    celeba_files(tmp_path / "celeba", monkeypatch, packed)
    data = catalogue.load("celeba", tmp_path)
    assert data.shape == (3, 64, 64, 256)
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 6, 6]
    shown = data.test.images[0].double()
    assert abs(float(shown[0].mean()) - 180) < 2, "the 19th face has the level 180"
    columns = 19 + (np.arange(64) + 0.5) * 140 / 64 - 0.5  # where the crop's pixels lay
    assert np.abs(shown[1].mean(0).numpy() - columns).max() < 2
    rows = 39 + (np.arange(64) + 0.5) * 140 / 64 - 0.5
    assert np.abs(shown[2].mean(1).numpy() - rows).max() < 2


def test_celebas_attributes_are_domains_and_requests_are_for_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    celeba_files(tmp_path / "celeba", monkeypatch)
    data = catalogue.load("celeba", tmp_path)
    assert data.conditions.choices == (4, 2, 2)
    assert data.train.attributes is not None
    assert data.train.attributes[:5].tolist() == [[0, 0, 0], [1, 1, 1], [2, 0, 1], [3, 1, 0], [0, 0, 1]]
    for split in (data.val, data.test):
        assert split.requests is not None
        want, have = split.requests.given.attributes, split.requests.originals
        assert want is not None
        assert have is not None
        assert split.attributes is not None
        assert torch.equal(have, split.attributes)
        assert bool((want != have).any(1).all())
        assert int(want[:, 0].max()) < 3, "nobody is asked for hair of no colour"


def test_every_domain_of_celeba_is_asked_for_alike_often() -> None:
    values = torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.arange(2)).repeat(500, 1)
    split = celeba._asked(celeba.Split(torch.zeros(len(values), 1, 1, 1, dtype=torch.uint8), attributes=values), "test")
    assert split.requests is not None
    want = split.requests.given.attributes
    assert want is not None
    assert bool((want != values).any(1).all())
    for have, others in ((torch.tensor([1, 0, 1]), 11), (torch.tensor([3, 1, 0]), 12)):
        asked = want[(values == have).all(1)]
        _, counts = asked.unique(dim=0, return_counts=True)
        assert len(counts) == others
        expected = 500 / others
        assert float(((counts - expected) ** 2 / expected).sum()) < 40  # chi-squared of 10 or 11: 31 in one of 1000


def test_celeba_is_decoded_once_and_then_mapped_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = celeba_files(tmp_path / "celeba", monkeypatch)
    first = catalogue.load("celeba", tmp_path).fingerprint()
    monkeypatch.setattr(celeba, "decode", None)  # calling it would fail
    assert catalogue.load("celeba", tmp_path).fingerprint() == first
    cached = next((tmp_path / "cache" / "trilemma" / "celeba").iterdir())
    cached.write_bytes(cached.read_bytes()[:100])
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(celeba, "MD5", {name: md5(folder / name) for name in celeba.MD5})
    assert catalogue.load("celeba", tmp_path).fingerprint() == first, "a damaged cache is made anew"


def test_celeba_is_cached_where_the_system_cannot_reserve_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")  # macOS has none
    celeba_files(tmp_path / "celeba", monkeypatch)
    assert len(catalogue.load("celeba", tmp_path).train) > 0
    assert [path.suffix for path in (tmp_path / "cache" / "trilemma" / "celeba").iterdir()] == [".npy"]


def test_celeba_goes_without_a_cache_where_none_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    celeba_files(tmp_path / "celeba", monkeypatch)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(catalogue.load("celeba", tmp_path).train) == 12
    assert "cannot be written" in capsys.readouterr().err


def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / celeba.PARTITION
    path.write_text("000001.jpg 0\n../../secret.jpg 0\n")
    with pytest.raises(UserError, match=r"list_eval_partition\.txt:2: expected `000001\.jpg 0`, got '\.\./\.\./secret"):
        celeba.read_partition(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / celeba.ZIP).unlink(), r"expected img_align_celeba\.zip or the folder"),
        (lambda folder: (folder / celeba.LIST).unlink(), r"list_attr_celeba\.txt missing"),
        (lambda folder: (folder / celeba.LIST).write_text("x"), r"list_attr_celeba\.txt: wrong checksum"),
        (lambda folder: (folder / celeba.ZIP).write_bytes(b"x"), r"img_align_celeba\.zip: wrong checksum"),
    ],
)
def test_incomplete_or_changed_celeba_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: object, message: str
) -> None:
    folder = celeba_files(tmp_path / "celeba", monkeypatch)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        catalogue.load("celeba", tmp_path)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (178, 200)).save(stream, "JPEG")
    with pytest.raises(UserError, match="expected an aligned image of 178x218, got 178x200"):
        celeba.prepared(stream.getvalue(), "000001.jpg")


# All


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "svhn", "celeba"])
def test_without_files_or_network_the_error_says_where_they_are_expected(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError) as caught:
        catalogue.load(name, tmp_path)
    text = str(caught.value)
    assert f"{name}: not found in {tmp_path}" in text
    assert f"in {tmp_path / name}: copy" in text
    assert "--data-dir or TRILEMMA_DATA" in text
    assert list((tmp_path / name).iterdir()) == [], "nothing half is left behind"


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "svhn", "celeba"])
def test_without_a_classifier_of_its_own_images_are_compared_by_pixels_and_it_is_said_why(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    shape = {"fashion-mnist": (1, 28, 28), "celeba": (3, 64, 64)}.get(name, (3, 32, 32))
    extractor, reason = choose_extractor(name, celeba.ImageShape(*shape))
    assert extractor is not None
    assert extractor.name == "pixels8x8"
    assert f"{name} has no classifier of its own" in reason


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        fetching.check_md5(tmp_path, "0", "x")

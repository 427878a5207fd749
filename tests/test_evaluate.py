"""Anyone's samples through `trilemma evaluate` and `bench.evaluate`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bench
from baselines.data import catalogue
from baselines.errors import UserError
from bench.evaluation import Evaluation
from bench.metrics.base import Features
from bench.metrics.frechet import frechet_distance
from tests.command import trilemma_here


class Corners:
    """Nine pixels and ten sums of them; counts the images that it is shown."""

    name = "corners"

    def __init__(self, weights: float = 1.0) -> None:
        self.weights, self.seen = weights, 0

    def identity(self) -> Mapping[str, Any]:
        return {"weights": self.weights}

    def extract(self, images: Tensor, levels: int) -> Features:
        self.seen += len(images)
        x = self.weights * images[:, 0].double().numpy() / (levels - 1)
        return Features(x[:, 1:7:2, 1:7:2].reshape(len(x), -1), 6 * x.reshape(len(x), -1)[:, 10:20])


@pytest.fixture
def digits() -> Tensor:
    return catalogue.load("digits").train.images


def trilemma(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return trilemma_here(folder, "evaluate", *arguments, TRILEMMA_CACHE=str(folder / "cache"))


def test_samples_in_a_file_are_scored_with_interval_floor_and_protocol(tmp_path: Path, digits: Tensor) -> None:
    np.savez(tmp_path / "fake.npz", images=digits[:700].numpy(), levels=17)
    done = trilemma(tmp_path, "--samples", "fake.npz", "--reference", "digits", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert "fd[digits-cnn]" in done.stdout
    assert "700 samples against 360 real images" in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    scores = {m["metric"]: m for m in found["measured"]}
    assert set(scores) >= {f"{name}[digits-cnn]" for name in ("fd", "fd_inf", "is", "kid", "recall", "coverage")}
    fd = scores["fd[digits-cnn]"]
    assert fd["protocol"]["n_generated"] == 700
    assert fd["protocol"]["split"] == "digits:test"
    assert fd["protocol"]["extractor"]["weights_sha256"]
    assert 0 < fd["floor"] < 3
    assert fd["value"] < 3, "real images are near real images"
    assert (found["samples"]["images"], found["reference"]["images"]) == (700, 360)
    assert len(found["samples"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(found)


def test_the_number_is_that_of_the_features(tmp_path: Path, digits: Tensor) -> None:
    real = catalogue.load("digits").test.images
    found = bench.evaluate(digits[:500], "digits", extractor=Corners(), metrics=["fd"], cache=tmp_path)
    features = [Corners().extract(images, 17).values for images in (real, digits[:500])]
    assert found.value("fd[corners]") == frechet_distance(real=features[0], generated=features[1])
    frame = found.frame()
    assert list(frame.metric) == ["fd[corners]"]
    assert frame.floor[0] == found.floor["fd[corners]"]


def test_arrays_that_do_not_say_their_levels_have_the_references(tmp_path: Path, digits: Tensor) -> None:
    np.save(tmp_path / "fake.npy", digits[:500].numpy())
    np.savez(tmp_path / "fake.npz", digits[:500].numpy())
    np.savez(tmp_path / "told.npz", images=digits[:500].numpy(), levels=17)
    sources = [
        digits[:500],
        digits[:500].split(100),
        *(tmp_path / name for name in ("fake.npy", "fake.npz", "told.npz")),
    ]
    values = [
        bench.evaluate(samples, "digits", metrics=["fd"], cache=False).value("fd[digits-cnn]") for samples in sources
    ]
    assert values == pytest.approx(values[:1] * len(sources), rel=1e-5), "up to the network's rounding of a batch"
    assert values[0] < 5, "real images are near real images"
    bright = (15 * digits[:500].int()).to(torch.uint8)
    with pytest.raises(UserError, match=r"expected values 0 .. 16 for 17 levels, got 240; .*--levels 256"):
        bench.evaluate(bright, "digits", cache=False)
    as_bytes = bench.evaluate(bright, "digits", levels=256, metrics=["fd"], cache=False)
    assert as_bytes.value("fd[digits-cnn]") < 5


def test_a_second_look_at_the_same_images_and_weights_computes_no_features(tmp_path: Path, digits: Tensor) -> None:
    def score(extractor: Corners, images: Tensor) -> Evaluation:
        return bench.evaluate(images, "digits", extractor=extractor, cache=tmp_path)

    first, again, heavier, other = Corners(), Corners(), Corners(2.0), Corners()
    before = score(first, digits[:300])
    assert first.seen > 0
    after = score(again, digits[:300])
    assert again.seen == 0
    assert after.measured == before.measured
    assert score(heavier, digits[:300]).value("fd[corners]") != before.value("fd[corners]")
    assert heavier.seen == first.seen
    score(other, digits[300:600])
    assert other.seen == 300  # the reference and the floor's images were known


def test_a_damaged_cache_is_made_again(tmp_path: Path, digits: Tensor) -> None:
    whole = Corners()
    before = bench.evaluate(digits[:300], "digits", extractor=whole, cache=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4  # reference, samples, train split, floor
    first = files[0].read_bytes()
    for file, harm in zip(files, ("cut", "flip", "swap", "swap"), strict=True):
        data = bytearray(file.read_bytes())
        if harm == "cut":
            file.write_bytes(data[:-9])
        elif harm == "flip":
            data[-5] ^= 0xFF
            file.write_bytes(data)
        else:
            file.write_bytes(first)  # whole, but of other images
    extractor = Corners()
    after = bench.evaluate(digits[:300], "digits", extractor=extractor, cache=tmp_path)
    assert extractor.seen == whole.seen
    assert after.measured == before.measured
    assert after.floor == before.floor


def test_without_a_cache_nothing_is_written(tmp_path: Path, digits: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))
    bench.evaluate(digits[:100], "digits", extractor=Corners(), metrics=["fd"], cache=False)
    assert not list(tmp_path.iterdir())
    bench.evaluate(digits[:100], "digits", extractor=Corners(), metrics=["fd"])
    assert list((tmp_path / "cache").iterdir())


def test_what_cannot_be_taken_has_its_reason_and_the_rest_comes(tmp_path: Path, digits: Tensor) -> None:
    found = bench.evaluate(digits[:4], "digits", extractor=Corners(), cache=False)
    assert found.value("precision[corners]") >= 0
    assert "needs at least" in found.skipped["density"]
    with pytest.raises(KeyError, match="needs at least"):
        found.value("density[corners]")


@pytest.mark.parametrize(
    ("reference", "train", "reason"),
    [
        ("digits:train", None, "no train images were given"),
        ("digits", "digits:val", "180 train images for 400 samples: the floor wants as many"),
        ("digits", None, ""),
    ],
)
def test_the_floor_is_made_of_as_many_train_images_or_says_why_not(
    reference: str, train: str | None, reason: str, digits: Tensor
) -> None:
    found = bench.evaluate(digits[:400], reference, train=train, extractor=Corners(), metrics=["fd"], cache=False)
    assert reason in found.floor_reason
    assert bool(found.floor) == (reason == "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--samples", "nothing"], "nothing is no folder and no file"),
        (
            ["--samples", "big.npy"],
            "samples: expected images like the reference's 1 x 8 x 8 (channels x height x width), got 1 x 9 x 9",
        ),
        (
            ["--samples", "fake.npy", "--train", "big.npy"],
            "train images: expected images like the reference's 1 x 8 x 8",
        ),
        (["--samples", "fake.npy", "--metric", "fdd"], "metric: unknown name 'fdd'; did you mean 'fd'?"),
        (["--samples", "fake.npy", "--extractor", "vgg"], "extractor: unknown name 'vgg'"),
        (["--samples", "fake.npy", "--extractor", "inception", "--weights", "no.pth"], "expected a file, got no.pth"),
        (["--samples", "fake.npy", "--json", "nowhere/out.json"], "expected a file in an existing folder"),
        (["--samples", "fake.npy", "--json", "."], "expected a file in an existing folder"),
        (["--samples", "fake.npy", "--device", "gpu"], "expected auto, cpu or cuda"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], told: str, tmp_path: Path, digits: Tensor) -> None:
    np.save(tmp_path / "fake.npy", digits[:20].numpy())
    np.save(tmp_path / "big.npy", np.zeros((20, 9, 9), np.uint8))
    done = trilemma(tmp_path, "--reference", "digits", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert told in " ".join(done.stderr.split())


def test_a_full_disk_costs_the_file_and_not_the_numbers(tmp_path: Path, digits: Tensor) -> None:
    np.save(tmp_path / "fake.npy", digits[:20].numpy())
    done = trilemma(tmp_path, "--samples", "fake.npy", "--reference", "digits", "--metric", "fd", "--json", "/dev/full")
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "fd[digits-cnn]" in done.stdout


def test_images_of_two_sizes_need_an_extractor_that_takes_both(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples: expected images like the reference's"):
        bench.evaluate(torch.zeros(9, 1, 9, 9, dtype=torch.uint8), torch.zeros(9, 3, 32, 32, dtype=torch.uint8))


def test_two_processes_give_the_numbers_of_one_and_count_no_image_twice(tmp_path: Path, digits: Tensor) -> None:
    np.savez_compressed(tmp_path / "fake.npz", images=digits[:1234].numpy(), levels=17)  # 500, 500 and 234
    images = {"file": tmp_path / "fake.npz", "tensor": digits[:1234], "generator": digits[:1234].split(100)}
    metrics = ["fd", "is", "kid"]
    cases = [("pixels8x8", name, 1e-10) for name in images]  # equal features
    for extractor, name, rel in (*cases, ("digits-cnn", "file", 1e-5)):  # through a float32 network
        one = bench.evaluate(images["file"], "digits", metrics=metrics, extractor=extractor, cache=False)
        two = bench.evaluate(images[name], "digits", metrics=metrics, extractor=extractor, cache=False, processes=2)
        assert len(one.measured) == (2 if extractor == "pixels8x8" else 3)
        for first, second in zip(one.measured, two.measured, strict=True):
            assert second.value == pytest.approx(first.value, rel=rel, abs=rel), (name, first.metric)
            assert second.n == first.n


def test_processes_through_the_command_line(tmp_path: Path, digits: Tensor) -> None:
    np.savez(tmp_path / "fake.npz", images=digits[:600].numpy(), levels=17)
    for processes in ("1", "2"):
        done = trilemma(
            tmp_path,
            *("--samples", "fake.npz", "--reference", "digits", "--no-cache", "--metric", "fd"),
            *("--processes", processes, "--json", f"{processes}.json"),
        )
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{n}.json").read_text())["measured"][0] for n in (1, 2))
    assert two["value"] == pytest.approx(one["value"], rel=1e-10)


def test_an_extractor_that_cannot_travel_is_told(digits: Tensor) -> None:
    class Local(Corners):
        pass

    with pytest.raises(UserError, match="cannot be handed to another process"):
        bench.evaluate(digits[:600], "digits", extractor=Local(), cache=False, processes=2)

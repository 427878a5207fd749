"""The shipped classifiers, the pixel fallback, and the rule that chooses between extractors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.data import catalogue
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics.classifier import FOLDER, SPECS, Classifier, ClassifierExtractor, batches
from bench.metrics.extractors import NETWORKS, PixelExtractor, choose_extractor, names
from bench.metrics.frechet import frechet_distance
from bench.metrics.manifold import density_coverage, precision_recall
from bench.metrics.train_classifier import RECIPES, Recipe, train, write

Array = NDArray[np.float64]
LEAST = {  # accuracy on the test split
    "digits-cnn": 0.99,
    "mnist-cnn": 0.993,
    "digits-large-cnn": 0.99,
    "mnist-large-cnn": 0.99,
}
DIGITS, MNIST, RGB = ImageShape(1, 8, 8, 17), ImageShape(1, 28, 28), ImageShape(3, 64, 64)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalogue.load("digits")


@pytest.fixture(scope="module")
def extractor() -> ClassifierExtractor:
    return ClassifierExtractor(SPECS["digits-cnn"])


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def manifest(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", sorted(SPECS))
def test_shipped_weights_are_the_ones_their_manifest_tells_of(name: str) -> None:
    told = manifest(name)
    weights = FOLDER / f"{name}.safetensors"
    assert told["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert weights.stat().st_size < 600_000
    assert ClassifierExtractor(SPECS[name]).identity()["weights_sha256"] == told["sha256"]
    least = LEAST.get(name, 0.97)
    assert told["accuracy"]["test"] >= least  # type: ignore[index]


def test_the_digits_classifier_has_its_told_accuracy_on_the_split_it_was_trained_on(
    digits: Dataset, extractor: ClassifierExtractor
) -> None:
    assert manifest("digits-cnn")["data_fingerprint"] == digits.fingerprint()
    for name in ("train", "val", "test"):
        split = getattr(digits, name)
        logits = extractor.extract(split.images, 17).logits
        assert logits is not None
        accuracy = float((logits.argmax(1) == split.labels.numpy()).mean())
        assert accuracy == pytest.approx(manifest("digits-cnn")["accuracy"][name], abs=1e-4)  # type: ignore[index]


def test_features_do_not_depend_on_the_batch(digits: Dataset, extractor: ClassifierExtractor) -> None:
    images = digits.development
    whole = extractor.extract(images, 17).values
    alone = np.concatenate([extractor.extract(images[i : i + 1], 17).values for i in (0, 700, 1436)])
    np.testing.assert_allclose(whole[[0, 700, 1436]], alone, rtol=1e-4, atol=1e-4)
    assert whole.dtype == np.float64
    assert len(whole) == len(images)


def corrupted(images: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
    x = images.numpy().astype(float)

    def rounded(y: Array) -> Tensor:
        return torch.from_numpy(np.clip(np.round(y), 0, 16).astype(np.uint8))

    flat = x.reshape(len(x), -1)
    apart = np.stack([rng.permutation(column) for column in flat.T], 1).reshape(x.shape)
    noisy = {f"noise {s}": rounded(x + s * rng.normal(size=x.shape)) for s in (1, 2, 3, 6)}
    return {**noisy, "independent pixels": rounded(apart)}


def test_the_scale_has_its_floor_near_one_and_independent_pixels_near_a_hundred(
    digits: Dataset, extractor: ClassifierExtractor, rng: np.random.Generator
) -> None:
    real = extractor.extract(digits.test.images, 17).values
    distance = {
        name: frechet_distance(real=real, generated=extractor.extract(images, 17).values)
        for name, images in {"floor": digits.development, **corrupted(digits.development, rng)}.items()
    }
    assert 0.3 < distance["floor"] < 3
    assert 50 < distance["independent pixels"] < 300
    rising = [distance[name] for name in ("floor", "noise 1", "noise 2", "noise 3", "noise 6")]
    assert rising == sorted(rising)


def test_a_dropped_class_costs_coverage_and_keeps_precision(digits: Dataset, extractor: ClassifierExtractor) -> None:
    labels = torch.cat([split.labels for split in (digits.train, digits.val) if split.labels is not None])
    real = extractor.extract(digits.test.images, 17).values
    found = []
    for kept in (labels >= 0, labels < 5):
        generated = extractor.extract(digits.development[kept], 17).values
        scores = precision_recall(real=real, generated=generated)
        found.append((scores.precision, density_coverage(real=real, generated=generated).coverage))
    (whole_precision, whole), (half_precision, half) = found
    assert whole > 0.97
    assert half == pytest.approx(0.5, abs=0.05)
    assert abs(half_precision - whole_precision) < 0.05


def test_images_of_another_size_are_refused(extractor: ClassifierExtractor) -> None:
    with pytest.raises(UserError, match=r"expected images \(1, 8, 8\)"):
        extractor.extract(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), 17)


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest"])
def test_damaged_weights_are_told(damage: str, tmp_path: Path) -> None:
    for suffix in ("json", "safetensors"):
        (tmp_path / f"digits-cnn.{suffix}").write_bytes((FOLDER / f"digits-cnn.{suffix}").read_bytes())
    weights = tmp_path / "digits-cnn.safetensors"
    if damage == "changed":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "missing":
        weights.unlink()
    else:
        (tmp_path / "digits-cnn.json").write_text("{")
    with pytest.raises(UserError, match="extractor digits-cnn"):
        ClassifierExtractor(SPECS["digits-cnn"], folder=tmp_path)


def test_training_is_reproducible_learns_and_sets_the_scale(digits: Dataset, tmp_path: Path) -> None:
    spec, recipe = SPECS["digits-cnn"], Recipe(epochs=1)
    told = [write(train(spec, recipe, digits, 0), spec, recipe, digits, 0, tmp_path / str(i)) for i in range(2)]
    assert told[0]["sha256"] == told[1]["sha256"]
    assert told[0]["accuracy"]["test"] > 0.8
    made = ClassifierExtractor(spec, folder=tmp_path / "0")
    values = made.extract(digits.train.images, 17).values
    assert values.var(0, ddof=1).sum() == pytest.approx(told[0]["total_variance"], rel=1e-4)


def test_training_never_sees_the_test_split(digits: Dataset) -> None:
    from dataclasses import replace

    labels = digits.test.labels
    assert labels is not None
    broken = replace(digits, test=replace(digits.test, images=digits.test.images * 0, labels=labels * 0))
    spec, recipe = SPECS["digits-cnn"], Recipe(epochs=1)
    states = [train(spec, recipe, data, 0).state_dict() for data in (digits, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_classifier_has_a_recipe_and_a_network_of_its_size() -> None:
    for name, spec in SPECS.items():
        assert name in RECIPES
        images = torch.zeros(2, *spec.chw, dtype=torch.uint8)
        features, logits = Classifier(spec).eval()(next(iter(batches(images, 256, "cpu"))))
        assert (features.shape, logits.shape) == ((2, 64), (2, sum(values for _, values in spec.heads)))


def test_pixels_are_block_means_between_minus_one_and_one() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (5, 3, 16, 32), generator=generator, dtype=torch.uint8)
    found = PixelExtractor().extract(images, 256)
    blocks = images.numpy().reshape(5, 3, 8, 2, 8, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(found.values, blocks.reshape(5, -1) / 127.5 - 1, rtol=1e-12, atol=1e-12)
    assert found.logits is None
    small = PixelExtractor().extract(images[:, :, :2, :3], 256).values
    assert small.shape == (5, 18)


@pytest.mark.parametrize(
    ("dataset", "shape", "name"),
    [
        ("digits", DIGITS, "digits-cnn"),
        ("mnist", MNIST, "mnist-cnn"),
        ("mnist-static", ImageShape(1, 28, 28, 2), "mnist-cnn"),
        ("markov-mesh", ImageShape(1, 8, 8, 2), "pixels8x8"),
        ("folder:somewhere", RGB, "pixels8x8"),
        ("npz:some.npz", ImageShape(4, 8, 8), "pixels8x8"),
    ],
)
def test_unasked_a_data_set_gets_its_own_classifier_or_pixels(
    dataset: str, shape: ImageShape, name: str, empty_cache: Path
) -> None:
    found, reason = choose_extractor(dataset, shape)
    assert found is not None
    assert found.name == name
    assert reason


@pytest.mark.parametrize(
    ("requested", "shape", "match"),
    [
        ("digit-cnn", DIGITS, "did you mean 'digits-cnn'"),
        ("mnist-cnn", DIGITS, "expected images of 1 x 28 x 28, got 1 x 8 x 8"),
        ("digits-cnn", ImageShape(4, 8, 8), "1 or 3 channels"),
    ],
)
def test_what_cannot_be_had_is_said(requested: str, shape: ImageShape, match: str) -> None:
    with pytest.raises(UserError, match=match):
        choose_extractor("digits", shape, requested)


def test_every_name_that_needs_no_weights_can_be_asked_for(empty_cache: Path) -> None:
    assert set(names()) > {*NETWORKS, *SPECS, "pixels8x8", "clip-vit-b-32"}
    for name in (*SPECS, "pixels8x8"):
        shape = ImageShape(*SPECS[name].chw, 17) if name in SPECS else DIGITS
        found, _ = choose_extractor("folder:somewhere", shape, name)
        assert found is not None
        assert found.name == name


def test_weights_for_another_extractor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes no weights"):
        choose_extractor("digits", DIGITS, "digits-cnn", tmp_path / "weights.pth")

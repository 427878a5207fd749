"""Inception by torch-fidelity: safe loading, and agreement of our kernels with its own pipeline."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.special import softmax
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics.extractors import choose_extractor
from bench.metrics.frechet import frechet_distance
from bench.metrics.inception import PUBLISHED, WEIGHTS_FILE, InceptionExtractor, cached_weights, read_weights
from bench.metrics.inception_score import inception_score
from bench.metrics.kernel import kernel_distance
from bench.metrics.manifold import precision_recall
from bench.metrics.network import as_rgb
from bench.peers.inception_weights import Images, blobs, save_weights
from tests.pickled_code import Bomb, Executed
from tests.published_weights import published_file

RGB = ImageShape(3, 64, 64)


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture(scope="module")
def kaiming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(params=["kaiming", "published"])
def weights(request: pytest.FixtureRequest, kaiming: Path) -> Path:
    """Random ones, and the real ones where they lie in torch's cache."""
    return kaiming if request.param == "kaiming" else published_file(PUBLISHED)


def test_grey_levels_become_rgb_bytes() -> None:
    grey = torch.arange(17, dtype=torch.uint8).view(1, 1, 1, 17)
    found = as_rgb(grey, 17)
    assert found.shape == (1, 3, 1, 17)
    assert (found == found[:, :1]).all()
    np.testing.assert_array_equal(found[0, 0, 0].numpy(), np.rint(np.arange(17) * 255 / 16))
    colour = blobs(2, 1)
    assert torch.equal(as_rgb(colour, 256), colour)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    bomb = tmp_path / "weights.pth"
    bomb.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(Executed):
        pickle.loads(bomb.read_bytes())  # noqa: S301 - the premise
    with pytest.raises(UserError, match="plain tensors"):
        read_weights(bomb)


@pytest.mark.parametrize("kind", ["text", "empty", "junk", "list", "other network", "other safetensors"])
def test_a_file_of_something_else_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.safetensors" if kind == "other safetensors" else "x.pth")
    if kind in ("text", "empty"):
        path.write_text("weights\n" if kind == "text" else "")
    elif kind == "junk":
        path.write_bytes(b"junk")
    elif kind == "other safetensors":
        save_file({"a": torch.zeros(1)}, path)
    else:
        torch.save([1, 2] if kind == "list" else {"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="Inception weights") as error:
        choose_extractor("digits", RGB, None, path)
    assert "--weights" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no-such\.pth.*--weights"):
        choose_extractor("digits", RGB, "inception", tmp_path / "no-such.pth")


def test_without_weights_and_network_the_error_says_how_to_give_them(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=rf"no network.*--weights PATH.*{WEIGHTS_FILE}"):
        choose_extractor("digits", RGB, "inception")


def test_a_download_is_kept_in_the_cache_only_when_whole(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(url: str, path: str, *_: object, **__: object) -> None:
        Path(path).write_text("half")
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "download_url_to_file", broken)
    with pytest.raises(UserError, match="invalid hash"):
        InceptionExtractor.open(None)
    assert not cached_weights().exists()


def test_both_file_formats_give_the_same_tensors(kaiming: Path, tmp_path: Path) -> None:
    state = read_weights(kaiming)
    save_file(state, tmp_path / "copy.safetensors")
    again = read_weights(tmp_path / "copy.safetensors")
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_cached_weights_are_used_unasked_for_large_images_alone(kaiming: Path, empty_cache: Path) -> None:
    cached_weights().parent.mkdir(parents=True)
    cached_weights().symlink_to(kaiming)
    chosen = {shape.height: choose_extractor("folder:somewhere", shape)[0] for shape in (RGB, ImageShape(1, 8, 8, 2))}
    assert [e.name for e in chosen.values() if e is not None] == ["inception", "pixels8x8"]


def test_features_and_logits_equal_torch_fidelitys(weights: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Net

    theirs = Net("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))
    found = InceptionExtractor(weights).extract(blobs(2, 1, 40), 256)
    expected = [part.double().numpy() for part in theirs(blobs(2, 1, 40))]
    assert found.logits is not None
    np.testing.assert_allclose(found.values, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, expected[1], rtol=1e-5, atol=1e-6)


def test_weights_of_another_architecture_do_not_fit(kaiming: Path, tmp_path: Path) -> None:
    state = read_weights(kaiming)
    del state["Mixed_7c.branch1x1.conv.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(UserError, match="do not fit"):
        InceptionExtractor(tmp_path / "lacking.pth").extract(blobs(1, 0), 256)


def by_small_eigenvalues(*, real: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """The Fréchet distance of fewer images than features, from the N x N matrix M M^T, M = X1 X2^T."""
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (real, generated))
    product = x @ y.T
    cross = np.sqrt(np.linalg.eigvalsh(product @ product.T).clip(0)).sum()
    gap = real.mean(0) - generated.mean(0)
    return float(gap @ gap + (x**2).sum() + (y**2).sum() - 2 * cross)


@pytest.mark.slow
def test_all_metrics_agree_with_torch_fidelity_on_the_same_images_and_weights(weights: Path) -> None:
    import torch_fidelity

    generated, real = blobs(40, 1), blobs(40, 2)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(real),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        isc_splits=1,
        kid_subsets=1,
        kid_subset_size=40,
        samples_shuffle=False,
        batch_size=20,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    extractor = InceptionExtractor(weights)
    ours, reference = extractor.extract(generated, 256), extractor.extract(real, 256)
    assert ours.logits is not None
    pair = {"real": reference.values, "generated": ours.values}
    assert ours.values.std(0).mean() > 1e-3  # the premise: the features are alive
    # 40 images in 2048 features: its eigenvalues of a singular product carry noise of some 1e-6 of the largest
    assert frechet_distance(**pair) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert frechet_distance(**pair) == pytest.approx(by_small_eigenvalues(**pair), rel=1e-7)
    few = {name: values[:, ::100] for name, values in pair.items()}  # 21 features: full rank
    stats = [fid_features_to_statistics(torch.from_numpy(few[name])) for name in ("generated", "real")]
    full_rank = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(**few) == pytest.approx(full_rank, rel=1e-6)
    score = inception_score(probabilities=softmax(ours.logits, axis=1))
    assert score == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    distance = kernel_distance(**pair)
    assert distance.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert precision_recall(**pair) == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-6)

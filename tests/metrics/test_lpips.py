"""LPIPS and its path length: torch-fidelity's numbers on the same weights, and weights that are read and never run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bench
from baselines.errors import UserError
from baselines.noise import Noise
from bench.metrics import lpips as ours
from bench.metrics.base import Subject
from bench.metrics.lpips import PUBLISHED, Lpips
from bench.metrics.path_length import PathLength, Paths, lengths, path_length
from bench.metrics.vgg16 import Vgg16Extractor
from tests.metrics.test_path_length import a_model
from tests.pickled_code import Bomb

CHANNELS = (64, 128, 256, 512, 512)


def linear_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        f"lin{i}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator)
        for i, channels in enumerate(CHANNELS)
    }


@pytest.fixture(scope="module")
def trunk_state() -> dict[str, Tensor]:
    """torchvision's state dict with random convolutions, and a classifier that takes no room."""
    from torchvision.models import vgg16

    generator, state = torch.Generator().manual_seed(1), {}
    with torch.device("meta"):
        shapes = vgg16().state_dict()
    for name, value in shapes.items():
        if name.startswith("features"):
            scale = 0.05 if value.ndim == 1 else (2 / int(np.prod(value.shape[1:]))) ** 0.5
            state[name] = scale * torch.randn(value.shape, generator=generator)
        else:
            state[name] = torch.zeros(1).expand(value.shape)
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, trunk_state: dict[str, Tensor]) -> tuple[Path, Path]:
    """VGG16's weights and LPIPS' own."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(trunk_state, folder / "vgg.pth")
    torch.save(linear_state(), folder / "lin.pth")
    return folder / "vgg.pth", folder / "lin.pth"


@pytest.fixture(scope="module")
def lpips(files: tuple[Path, Path]) -> Lpips:
    return Lpips.open(*files)


@pytest.fixture
def theirs(trunk_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torch-fidelity's LPIPS with the same weights, on images of any dtype over 0 .. 255, resized to 64x64."""
    from torch_fidelity import sample_similarity_lpips as module
    from torchvision.models import vgg16

    def network() -> nn.Module:
        with torch.device("meta"):
            net = vgg16()
        net.load_state_dict(trunk_state, assign=True)
        return net

    monkeypatch.setattr(module, "torchvision_load_pretrained_vgg16", network)
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: linear_state())
    found: nn.Module = module.SampleSimilarityLPIPS("lpips-vgg16", sample_similarity_resize=64)
    return found


def blobs(n: int, seed: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Smooth random images in [-1, 1]."""
    coarse = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return 2 * nn.functional.interpolate(coarse, size=(height, width), mode="bilinear") - 1


@pytest.mark.parametrize("size", [(8, 8), (30, 50), (64, 64), (64, 90), (100, 80)], ids=str)
def test_it_is_torch_fidelitys(size: tuple[int, int], lpips: Lpips, theirs: nn.Module) -> None:
    first, second = blobs(3, 0, *size), blobs(3, 1, *size)
    found = lpips.distance(first, second)
    assert found.dtype == torch.float64
    assert float(found.min()) > 0.05, "the premise: they differ"
    expected = theirs((first + 1) * 127.5, (second + 1) * 127.5).flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_it_is_a_symmetric_distance_and_grey_is_rgb(lpips: Lpips) -> None:
    first, second = blobs(2, 0, 16, 16, channels=1), blobs(2, 1, 16, 16, channels=1)
    found = lpips.distance(first, second)
    torch.testing.assert_close(lpips.distance(second, first), found, rtol=1e-6, atol=0)
    colour = [x.expand(-1, 3, -1, -1) for x in (first, second)]
    torch.testing.assert_close(lpips.distance(*colour), found, rtol=1e-6, atol=0)
    assert float(lpips.distance(first, first).abs().max()) == 0
    assert bool(torch.isfinite(lpips.distance(torch.ones(1, 3, 8, 8), -torch.ones(1, 3, 8, 8))).all())
    with pytest.raises(UserError, match="1 or 3 channels, got 2"):
        lpips.distance(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))


class Generator(nn.Module):
    """Smooth images (B, 3, 8, 8) in [-1, 1]."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(192, 10, generator=torch.Generator().manual_seed(3)))
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        images = torch.tanh(z.to(self.weight.dtype) @ self.weight.T).view(-1, 3, 8, 8)
        return (images + 1) * 127.5 if self.scale == 255 else images


def test_the_path_length_is_torch_fidelitys(lpips: Lpips, theirs: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """At t = 0, on the same latents; with a step that leaves float32, in which theirs is taken, its digits.

    Without its percentiles, which it asks for by an argument that numpy has dropped.
    """
    from torch_fidelity import GenerativeModelModuleWrapper, calculate_metrics, metric_ppl

    monkeypatch.setattr(metric_ppl, "create_sample_similarity", lambda *_, **__: theirs)
    n, epsilon = 20, 0.3
    found = calculate_metrics(
        input1=GenerativeModelModuleWrapper(Generator(255), 10, "normal", 0),
        input1_model_num_samples=n,
        ppl=True,
        ppl_reduction="none",
        ppl_epsilon=epsilon,
        ppl_z_interp_mode="slerp_any",
        ppl_discard_percentile_lower=None,
        ppl_discard_percentile_higher=None,
        batch_size=10,
        cuda=False,
        verbose=False,
        rng_seed=4,
    )
    rng = np.random.RandomState(4)
    first, second = (torch.from_numpy(rng.randn(n, 10)).float().double() for _ in range(2))
    lived = path_length(Generator(), lpips.distance, first, second, torch.zeros(n).double(), epsilon)
    np.testing.assert_allclose(lived, found["perceptual_path_length_raw"], rtol=1e-5)
    assert lived.mean() == pytest.approx(found["perceptual_path_length_mean"], rel=1e-6)


def test_float32_gives_the_mean_to_a_thousandth(lpips: Lpips) -> None:
    class Exact(Lpips):
        def distance(self, first: Tensor, second: Tensor) -> Tensor:
            double = self.vgg16.trunk().double()
            try:
                return ours.lpips(double, [w.double() for w in self.linear], first, second)
            finally:
                double.float()

    exact = Exact.__new__(Exact)
    exact.vgg16, exact.linear = lpips.vgg16, lpips.linear
    paths, noise = Paths(6, batch=3), Noise(0, dtype=torch.float64)
    single = lengths(lambda z: Generator()(z.float()), 10, lpips, paths, noise)
    double = lengths(Generator().double(), 10, exact, paths, noise)
    assert single.mean() == pytest.approx(double.mean(), rel=1e-3)


# Weights, and the way to them


def test_the_published_file_is_the_one_that_torch_fidelity_takes() -> None:
    from torch_fidelity.sample_similarity_lpips import URL_VGG16_LPIPS

    assert PUBLISHED.url == URL_VGG16_LPIPS
    assert PUBLISHED.url.endswith(PUBLISHED.file)
    assert len(PUBLISHED.sha256) == 64


@pytest.mark.parametrize("kind", ["missing", "text", "code", "list", "other", "shape"])
def test_what_is_no_file_of_its_weights_is_refused(kind: str, lpips: Lpips, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if kind == "text":
        path.write_text("weights\n")
    elif kind == "code":
        path.write_bytes(pickle.dumps({"lin0.model.1.weight": Bomb()}))
    elif kind != "missing":
        cut = {name: value[:, 1:] for name, value in linear_state().items()}
        torch.save([1] if kind == "list" else cut if kind == "shape" else {"fc": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"LPIPS weights: .*x\.pth.*lpips_weights=PATH.*weights-vgg16-lpips\.pth from"):
        Lpips(lpips.vgg16, path)


def test_safetensors_give_the_same_and_both_files_are_in_the_identity(
    lpips: Lpips, files: tuple[Path, Path], tmp_path: Path
) -> None:
    save_file(linear_state(), tmp_path / "lin.safetensors")
    other = Lpips(lpips.vgg16, tmp_path / "lin.safetensors")
    first, second = blobs(1, 0, 8, 8), blobs(1, 1, 8, 8)
    torch.testing.assert_close(other.distance(first, second), lpips.distance(first, second), rtol=0, atol=0)
    told, theirs = lpips.identity(), other.identity()
    assert told["trunk_sha256"] == theirs["trunk_sha256"] == lpips.vgg16.sha256
    assert told["weights_sha256"] != theirs["weights_sha256"]
    assert {"resize", "layers", "pixels", "dtype", "version"} <= told.keys()


def test_a_run_with_vgg16_makes_plain_ppl_where_the_weights_lie_in_the_cache(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    subject = Subject(0, model=a_model(), extractor=Vgg16Extractor(files[0]))
    metric = PathLength(pairs=4)
    reason = str(metric.unavailable(subject))
    assert f"put weights-vgg16-lpips.pth from {PUBLISHED.url} into torch's cache, {tmp_path}" in reason
    PUBLISHED.cached().parent.mkdir(parents=True)
    PUBLISHED.cached().symlink_to(files[1])
    assert metric.unavailable(subject) is None
    (found,) = metric.measure(subject)
    assert found.metric == "ppl"
    assert found.value > 0
    assert found.protocol["distance"]["name"] == "lpips-vgg16"


def test_from_python_the_files_are_given(files: tuple[Path, Path]) -> None:
    weights: dict[str, Any] = {"weights": files[0], "lpips_weights": files[1]}
    found = bench.path_length(Generator(), 10, pairs=4, sampling="end", **weights)
    assert found.metric == "ppl"
    assert found.protocol["places"] == "t = 0"

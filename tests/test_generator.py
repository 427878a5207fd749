"""Anyone's generator from Python: what is measured, what is refused and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from baselines.data.likelihood import from_signed, to_signed
from baselines.errors import DivergedError, UserError
from bench.metrics.path_length import trimmed_mean
from tests.metrics.test_path_length import Squared, analytic, linear, matrix, smooth


def test_a_module_is_measured_in_evaluation_mode_and_left_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(5, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    found = bench.path_length(net, 5, extractor="digits-cnn", pairs=60, batch=7)
    again = bench.path_length(net, 5, extractor="digits-cnn", pairs=60, batch=60)
    assert net.training
    assert net[1].training
    assert found.value == pytest.approx(again.value, rel=1e-3)
    assert found.metric == "ppl[digits-cnn]"


def test_a_users_own_distance_bears_its_name() -> None:
    found = bench.path_length(linear(matrix().float()), 6, extractor=Squared(), pairs=2000, epsilon=1e-3, seed=1)
    z, t = torch.randn(2, 4000, 6).double(), torch.rand(4000).double()
    expected = trimmed_mean(analytic(matrix(), z[0], z[1], t))
    assert found.metric == "ppl[pixels]"
    assert found.protocol["distance"]["weights_sha256"] == "none"
    assert found.value == pytest.approx(expected.value, rel=0.1)


def images(value: float | None = None, shape: tuple[int, ...] = (1, 8, 8)) -> Callable[[Tensor], Tensor]:
    return lambda z: torch.full((len(z), *shape), math.nan if value is None else value)


@pytest.mark.parametrize(
    ("decode", "reason"),
    [
        (lambda z: torch.zeros(len(z), 1, 8, 8, dtype=torch.uint8), r"got torch\.uint8; a step .* rounding"),
        (lambda z: to_signed(from_signed(z[:, :1, None, None].expand(-1, 1, 8, 8), 256), 256), "rounded to 256 levels"),
        (lambda z: torch.zeros(len(z), 1, 8, 8).half(), r"got torch\.float16; .* rounding"),
        (images(255.0), r"in \[-1, 1\], got 255 \.\. 255; scale or clamp"),
        (images(0.0, (8, 8)), r"\(100, C, H, W\) in \[-1, 1\], got \(100, 8, 8\)"),
        (lambda z: torch.zeros(len(z) + 1, 1, 8, 8), r"got \(101, 1, 8, 8\)"),
        (lambda z: z.numpy(), "got ndarray"),
        (images(0.1, (3, 8, 8)), r"digits-cnn: expected images \(1, 8, 8\), got \(3, 8, 8\)"),
    ],
)
def test_what_is_no_generator_of_real_valued_images_is_refused(decode: Callable[..., Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        bench.path_length(decode, 4, extractor="digits-cnn", pairs=50)


def test_nan_is_not_averaged() -> None:
    with pytest.raises(DivergedError, match="NaN or infinity among 100"):
        bench.path_length(images(), 4, extractor="digits-cnn", pairs=50)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pairs": 1}, "pairs >= 2"),
        ({"epsilon": 0.0}, "epsilon between 0 and 1, got 0"),
        ({"sampling": "middle"}, "sampling full or end, got 'middle'"),
        ({"extractor": "inception"}, "'inception' gives no distance of images that are not rounded"),
        ({"extractor": nn.Identity()}, "an object with `name`"),
        ({"extractor": "digits-cnn", "weights": "x.pth"}, "they are for vgg16"),
        ({"latent": 0}, "at least 1 dimension"),
        ({"latent": 2.5}, "number of dimensions of z, got 2.5"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        bench.path_length(smooth, **{"latent": 6, "extractor": Squared(), **options})

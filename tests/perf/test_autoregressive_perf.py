"""How long exact sampling of autoregressive models takes beside the naive loop, one whole pass for each dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from baselines import registry
from baselines.autoregression import Autoregressive, Known
from baselines.contract import Draw, Noise
from baselines.types import ImageShape
from bench.measure.memory import keep_freed_memory
from bench.measure.workload import capture_calls

pytestmark = pytest.mark.slow

Compare = Callable[..., dict[str, Any]]

MNIST = ImageShape(1, 28, 28, 256)
DIMENSIONS = {1: 40, 16: 8}  # that the naive loop is timed for; every one of its passes is the same work
ROUNDS = 9
LEAST = {1: 7.1, 16: 47.5}  # what another cached sampler of a PixelCNN reached beside its naive loop


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn", "pixelcnnpp"])
def test_beside_the_naive_loop_at_28x28_with_256_levels(
    compare: Compare, benchmark: Any, name: str, batch: int
) -> None:
    keep_freed_memory()
    torch.manual_seed(0)
    entry = registry.load(name).model
    model = entry.build(MNIST, entry.config()).eval()
    assert isinstance(model, Autoregressive)
    part = DIMENSIONS[batch]
    uniform = Noise(0).uniform("pixels", batch, MNIST.chw)
    images = model.draw(uniform)

    contenders = {
        "fast": lambda: model.sample(batch, Draw(), Noise(0)),
        "naive": lambda: model.draw_naively(uniform, Known(images, MNIST.dims - part)),
    }
    group = f"{entry.title}, 28x28 pixels of 256 levels, batch {batch}"
    parts = {"naive": part / MNIST.dims}
    found = compare(group, contenders, ROUNDS, "autoregressive", parts)
    assert found["fast"].shape == found["naive"].shape == (batch, *MNIST.chw)
    with capture_calls(model) as calls:
        model.sample(batch, Draw(), Noise(0))
    note = f"{calls.count} calls against {MNIST.dims}; the naive loop timed for {part} of them"
    benchmark.extra_info["notes"] = {"naive": note}
    assert benchmark.extra_info["ratio"]["naive"] > LEAST[batch]

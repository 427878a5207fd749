"""How long exact sampling of autoregressive models takes; the naive loop stands in bench/peers/autoregressive.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines import registry
from baselines.contract import Draw, Noise
from baselines.types import ImageShape
from bench.measure.memory import keep_freed_memory

pytestmark = pytest.mark.slow

MNIST = ImageShape(1, 28, 28, 256)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn", "pixelcnnpp"])
def test_sampling_at_28x28_with_256_levels(benchmark: Any, name: str, batch: int) -> None:
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    entry = registry.load(name).model
    model = entry.build(MNIST, entry.config()).eval()
    images = benchmark.pedantic(lambda: model.sample(batch, Draw(), Noise(0)), rounds=10, warmup_rounds=1)
    torch.set_num_threads(threads)
    assert images.shape == (batch, *MNIST.chw)

"""FD by resolution: the floor for real images of each size, far more for noise, and `fd` itself at the full size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from baselines.contract import HasResolutions, Noise
from baselines.types import ImageShape
from bench.metrics.base import Subject
from bench.metrics.extractors import PixelExtractor
from bench.metrics.frechet import Frechet
from bench.metrics.images import Held
from bench.metrics.resolutions import FrechetByResolution, at_size, enlarged
from bench.record import Measurement

SHAPE = ImageShape(1, 4, 4, 17)


def smooth(n: int, seed: int) -> Tensor:
    """Images with coarse structure and a little fine noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(3, 14, (n, 1, 2, 2), generator=generator)
    fine = torch.randint(-2, 3, (n, 1, 4, 4), generator=generator)
    return (coarse.repeat_interleave(2, 2).repeat_interleave(2, 3) + fine).to(torch.uint8)


class Oracle(HasResolutions):
    """Draws real images, brought to each size by averaging."""

    resolutions = ((2, 2), (4, 4))

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def sample_at(self, resolution: int, n: int, noise: Noise) -> Tensor:
        images = self.images[noise.first : noise.first + n].double()
        factor = 4 // self.resolutions[resolution][0]
        blocks = images.unfold(2, factor, factor).unfold(3, factor, factor)
        return blocks.mean((-2, -1)).round().to(torch.uint8)


class Noisy(Oracle):
    """Right at the small size, independent pixels at the full one."""

    def sample_at(self, resolution: int, n: int, noise: Noise) -> Tensor:
        if resolution == 0:
            return super().sample_at(resolution, n, noise)
        return (noise.uniform("x", n, SHAPE.chw) * 17).to(torch.uint8)


def measured(make: Callable[[Tensor], HasResolutions]) -> tuple[dict[str, Measurement], Subject]:
    images = smooth(600, 0)
    model = make(images)
    full = torch.cat([model.sample_at(1, 300, Noise(0)), model.sample_at(1, 300, Noise(0, first=300))])
    subject = Subject(
        0,
        model=model,  # type: ignore[arg-type]
        generated=Held(full, SHAPE, "samples"),
        reference=Held(smooth(500, 1), SHAPE, "test images", "test"),
        train=Held(smooth(700, 2), SHAPE, "train images", "train"),
        extractor=PixelExtractor(),
    )
    return {m.metric: m for m in FrechetByResolution(replicates=20).measure(subject)}, subject


def test_an_oracle_reads_the_floor_at_each_size_and_fd_at_the_full_one() -> None:
    found, subject = measured(Oracle)
    assert list(found) == ["fd_by_resolution[pixels8x8 2x2]", "fd_by_resolution[pixels8x8 4x4]"]
    for m in found.values():
        floor = float(m.note.split("600 train images have ")[1].split(";")[0])
        assert m.value < 3 * floor
        assert m.n == 600
        assert m.protocol["n_real"] == 500
    whole = Frechet(replicates=20).measure(subject)[0]
    full = found["fd_by_resolution[pixels8x8 4x4]"]
    assert (full.value, full.low, full.high) == (whole.value, whole.low, whole.high)


def test_a_fault_at_one_size_is_told_at_that_size() -> None:
    found, _ = measured(Noisy)
    right, _ = measured(Oracle)
    small, full = "fd_by_resolution[pixels8x8 2x2]", "fd_by_resolution[pixels8x8 4x4]"
    assert found[small].value == right[small].value
    assert found[full].value > 20 * right[full].value


def test_images_are_brought_to_a_size_by_means_of_blocks_and_enlarged_alike() -> None:
    images = smooth(5, 3)
    means = images.numpy().reshape(5, 1, 2, 2, 2, 2).mean((3, 5)).round().astype(np.uint8)
    brought = at_size(Held(images, SHAPE, "test images", "test", np.arange(5), True), (2, 2))
    assert torch.equal(brought.images, enlarged(torch.from_numpy(means), SHAPE))
    assert brought.stratified
    assert brought.labels is not None
    assert (brought.split, brought.what, brought.labels.tolist()) == ("test", "test images", [0, 1, 2, 3, 4])
    assert torch.equal(at_size(Held(images, SHAPE, "x"), (4, 4)).images, images)
    # of two pixels a and b a row of four is a, 3a/4 + b/4, a/4 + 3b/4, b
    row = enlarged(torch.tensor([[0, 16]], dtype=torch.uint8).view(1, 1, 1, 2), ImageShape(1, 1, 4, 17))
    assert row.flatten().tolist() == [0, 4, 12, 16]


def test_other_models_are_left_out_with_a_reason(subject: Callable[..., Subject]) -> None:
    assert FrechetByResolution().unavailable(subject()) == "the model draws images of one size"
    unseen = Subject(0, model=Oracle(smooth(4, 0)), extractor_reason="none here")  # type: ignore[arg-type]
    assert FrechetByResolution().unavailable(unseen) == "none here"

"""How much of a test image survives the way through a model's code: mean squared error of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.contract import Reconstructs
from baselines.data.likelihood import subset, to_unit
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import mean_over_images

IMAGES = 2000  # of the test split at most, the same ones for every model
_TOGETHER = 250


class Reconstruction:
    """`reconstruction_mse` of models that map an image to a code and back."""

    name = "reconstruction_mse"
    description = "Mean squared error of test images that went through the model's code and back, pixels in [0, 1]"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is none; None if there is one."""
        if subject.dataset is None or len(subject.dataset.test) == 0:
            return "there are no test images"
        return None if isinstance(subject.model, Reconstructs) else "the model does not reconstruct images"

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """The mean over test images, from 0 on; the note says what the mean train image would have."""
        model, data = subject.model, subject.dataset
        assert isinstance(model, Reconstructs)
        assert data is not None
        images = data.test.images[subset(len(data.test), IMAGES)]
        parts = torch.split(images, _TOGETHER)
        with torch.no_grad():
            back = torch.cat([model.reconstruct(part.to(subject.device)).cpu() for part in parts])
        levels = data.shape.levels
        found = mean_over_images(errors(images, to_unit(back, levels, torch.float64), levels))
        average = sum(part.double().sum(0) for part in torch.split(data.train.images, 1000)) / len(data.train)
        alone = float(errors(images, average / (levels - 1), levels).mean())
        return (
            Measurement(
                metric=self.name,
                value=found.value,
                unit="",
                better="lower",
                n=found.n,
                scope=self.scope,
                low=found.low,
                high=found.high,
                protocol={
                    **subject.protocol,
                    "split": "test",
                    "n_real": len(images),
                    "pixels": "[0, 1], rounded to levels",
                    "version": self.version,
                },
                note=f"the mean train image would have {alone:.3g}; mean over images with its normal interval",
            ),
        )


def errors(x: Tensor, y: Tensor, levels: int) -> Array:
    """Mean squared difference of each of uint8 x (N, C, H, W) from y, pixels in [0, 1] that broadcast to it, (N,)."""
    found: Array = (to_unit(x, levels, torch.float64) - y).square().flatten(1).mean(1).numpy()
    return found

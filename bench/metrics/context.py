"""How much of the context that it may use an autoregressive model does use: the Jacobian of its conditionals."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.autoregression import Autoregressive
from baselines.data.likelihood import subset
from baselines.errors import UserError
from bench.metrics.base import Subject
from bench.record import Measurement, Scope

IMAGES = 2  # whose Jacobians are joined; what is 0 for one image may not be for another
DIMENSIONS = 256  # at most, spread evenly over the model's order
SHOWN = 16  # images over which the picture of one pixel's context is averaged
_TOGETHER = 32  # rows of the Jacobian at a time


class ContextFraction:
    """`context_fraction`: the share of earlier dimensions on which a conditional depends at all."""

    name = "context_fraction"
    description = "share of the earlier pixels that the conditionals of an autoregressive model depend on"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no context; None if there is one."""
        if subject.dataset is None or len(subject.dataset.test) == 0:
            return "there are no test images"
        return None if isinstance(subject.model, Autoregressive) else "the model has no order of pixels"

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """The share, joined over a few test images; the context of the middle pixel goes to `subject.maps`.

        Raises:
            UserError: if a conditional depends on a later dimension: then no likelihood of the model is one.
        """
        model, dataset = subject.model, subject.dataset
        assert isinstance(model, Autoregressive)
        assert dataset is not None
        images = dataset.test.images
        x = images[subset(len(images), SHOWN)].to(subject.device)
        places = model.order[_spread(dataset.shape.dims, DIMENSIONS)].to(subject.device)
        reached = torch.zeros(len(places), dataset.shape.dims, dtype=torch.bool, device=x.device)
        for done, image in enumerate(x[:IMAGES]):
            subject.progress("context", done, IMAGES)
            reached |= jacobian(model, image, places) != 0
        rank = model.order.argsort().to(x.device)
        earlier = rank[None, :] < rank[places][:, None]
        later = rank[None, :] >= rank[places][:, None]
        if bool((reached & later).any()):
            raise UserError(
                f"{type(model).__name__}: {int((reached & later).sum())} conditionals depend on a pixel that is drawn "
                "with them or later; expected none, or the product of conditionals is no likelihood"
            )
        _, height, width = dataset.shape.chw
        middle = (height // 2) * width + width // 2
        subject.maps["context"] = {
            "values": context_of(model, x, middle).tolist(),
            "place": [height // 2, width // 2],
        }
        share = float((reached & earlier).sum() / earlier.sum().clamp(min=1))
        note = f"{len(places)} of {dataset.shape.dims} conditionals, joined over {min(IMAGES, len(x))} test images"
        protocol = {"split": "test", "conditionals": len(places), "images": IMAGES, "version": self.version}
        return (Measurement(self.name, share, "", "higher", len(places), self.scope, protocol=protocol, note=note),)


def jacobian(model: Autoregressive, image: Tensor, places: Tensor) -> Tensor:
    """d/dx of a weighted sum of log P over the levels, of the conditionals at flat `places`: (len(places), D).

    image: uint8 (C, H, W). The weights differ from level to level, so that no change cancels; the logarithm of one
    level alone may be flat, where its probability is 1.
    """
    generator = torch.Generator().manual_seed(0)
    weights = (0.5 + torch.rand(model.shape.levels, generator=generator)).to(image.device)
    rows = []
    for chunk in torch.split(places, _TOGETHER):
        x = _between(image, model.shape.levels).expand(len(chunk), *image.shape).clone().requires_grad_()
        with torch.enable_grad():
            log_p = model.log_conditionals(x).flatten(2)
            own = log_p[torch.arange(len(chunk), device=x.device), :, chunk]
            (gradient,) = torch.autograd.grad((own * weights).sum(), x)
        rows.append(gradient.flatten(1))
    return torch.cat(rows)


def context_of(model: Autoregressive, x: Tensor, place: int) -> Tensor:
    """(H, W): the mean of |d log P(x_place | those before it) / dx_j| over uint8 images, summed over colours."""
    levels = _between(x, model.shape.levels).requires_grad_()
    with torch.enable_grad():
        log_p = model.log_conditionals(levels).flatten(2)[:, :, place]
        own = log_p.gather(1, x.flatten(1)[:, place].long()[:, None])
        (gradient,) = torch.autograd.grad(own.sum(), levels)
    return gradient.abs().sum(1).mean(0)


def _between(x: Tensor, levels: int) -> Tensor:
    """A little beside the levels: an input that is coded level by level has its kinks on them, where slopes read 0."""
    values = x.float()
    return torch.where(values < levels - 1, values + 0.25, values - 0.25)


def _spread(dims: int, at_most: int) -> Tensor:
    """At most so many of 0 .. dims - 1, evenly."""
    return torch.arange(dims) if dims <= at_most else torch.linspace(0, dims - 1, at_most).round().long()

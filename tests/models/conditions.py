"""What conditional models are given in tests: random requests of the right form for images of any shape."""

from __future__ import annotations

import torch

from baselines.contract import Given
from baselines.given import Requests
from baselines.types import Conditions, ImageShape, Task

WORDS = ("", "a", "red", "blue", "one", "two", "on")
ATTRIBUTES = {"ink": ("red", "green", "blue"), "inverted": ("no", "yes")}
LENGTH = 5


def conditions_for(task: Task, shape: ImageShape) -> Conditions:
    """Sizes of the data set below."""
    if task == "text_to_image":
        return Conditions(words=WORDS, caption_length=LENGTH, attributes=ATTRIBUTES)
    if task == "translation":
        return Conditions(source=shape)
    if task == "domain_translation":
        return Conditions(attributes=ATTRIBUTES, source=shape)
    if task == "completion":
        return Conditions(patches=(2, min(4, shape.height - 1)))
    return Conditions()


def requests_for(task: Task, images: torch.Tensor) -> Requests | None:
    """A request for each of uint8 images (N, C, H, W), or None where the task has none."""
    generator = torch.Generator().manual_seed(11)
    n = len(images)
    attributes = torch.stack([torch.randint(len(v), (n,), generator=generator) for v in ATTRIBUTES.values()], 1)
    if task == "text_to_image":
        tokens = torch.randint(1, len(WORDS), (n, LENGTH), generator=generator)
        tokens[::2, -2:] = 0
        return Requests(Given(tokens=tokens), attributes=attributes)
    if task == "translation":
        return Requests(Given(images=images.flip(0)), aligned=False, answers=images.flip(0))
    if task == "domain_translation":
        return Requests(Given(images=images, attributes=attributes), attributes=attributes)
    if task == "completion":
        side = min(4, images.shape[2] - 1)
        patches = torch.stack([images[..., :side, :side], images[..., -side:, -side:]], 1)
        masks = torch.zeros(n, 1, *images.shape[2:], dtype=torch.bool)
        masks[..., :side, :side] = masks[..., -side:, -side:] = True
        return Requests(Given(patches=patches), masks=masks)
    return None

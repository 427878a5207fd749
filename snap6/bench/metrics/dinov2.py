"""DINOv2 as extractor, with the preprocessing of torch-fidelity and the checkpoints of facebookresearch/dinov2.

Oquab et al. 2023, arXiv:2304.07193; as feature space of generative models: Stein et al. 2023, arXiv:2306.04675, who
take ViT-L/14. torch-fidelity runs code from torch.hub for it; here the network is our own and the weights are data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.errors import UserError
from bench.metrics.dinov2_net import Dinov2, Shape
from bench.metrics.network import IMAGENET, NetworkExtractor, Normalised, tensorflow_resize
from bench.metrics.weights_file import Published, as_float32, read_state

_SIZE = 224


@dataclass(frozen=True)
class Variant:
    """One of the published networks."""

    name: str  # in a metric's name
    shape: Shape
    published: Published


def _variant(name: str, file: str, sha256: str, shape: Shape) -> Variant:
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{file}/dinov2_{file}_pretrain.pth"
    return Variant(name, shape, Published(f"DINOv2 ({name})", f"dinov2_{file}_pretrain.pth", url, sha256))


VARIANTS: tuple[Variant, ...] = (
    _variant(
        "dinov2",
        "vitl14",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        Shape(1024, 24, hidden=4096),
    ),
    _variant(
        "dinov2-vit-s-14",
        "vits14",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        Shape(384, 12, hidden=1536),
    ),
    _variant(
        "dinov2-vit-b-14",
        "vitb14",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        Shape(768, 12, hidden=3072),
    ),
    _variant(
        "dinov2-vit-g-14",
        "vitg14",
        "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
        Shape(1536, 40, hidden=4096, swiglu=True),
    ),
)
"""The one called `dinov2` is ViT-L/14."""


class Dinov2Extractor(NetworkExtractor):
    """`dinov2` and its sizes: the class token, 384 to 1536 features."""

    def __init__(self, variant: Variant, weights: Path, device: str = "cpu") -> None:
        self.variant = variant
        super().__init__(variant.name, variant.published, weights, device)

    @classmethod
    def open(cls, variant: Variant, weights: Path | None, device: str = "cpu") -> Dinov2Extractor:
        """With the weights given, else those in the cache, else downloaded into it."""
        return cls(variant, weights if weights is not None else variant.published.found(), device)

    def read(self, weights: Path) -> dict[str, Tensor]:
        """The state dict of facebookresearch/dinov2."""
        what, how = f"{self.published.network} weights", self.published.how()
        state = read_state(weights, self.published)
        if "register_tokens" in state:
            raise UserError(f"{what}: expected a network without register tokens, got one with, in {weights}; {how}")
        state.pop("mask_token", None)  # for training alone
        try:
            shape = Shape.of(state)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"{what}: {weights} is no state dict of DINOv2 (missing or odd: {error}); {how}") from None
        if shape != self.variant.shape:
            other = next((f"; it is {v.name}'s: --extractor {v.name}" for v in VARIANTS if v.shape == shape), "")
            raise UserError(f"{what}: expected a {self.variant.shape} in {weights}, got a {shape}{other}; {how}")
        return state

    def described(self) -> Mapping[str, Any]:
        """Architecture, layer and resize."""
        return {
            "architecture": str(self.variant.shape),
            "layers": "class token after the last norm",
            "resize": tensorflow_resize(_SIZE),
            "normalised": "ImageNet mean and deviation",
        }

    def build(self, state: dict[str, Tensor]) -> nn.Module:
        """The transformer with these weights."""
        with torch.device("meta"):  # no time for initial values that are not kept
            net = Dinov2(self.variant.shape)
        net.load_state_dict(as_float32(state), assign=True)
        return Normalised(net, _SIZE, IMAGENET)

"""VGG16 as torch-fidelity takes it: torchvision's network and ImageNet weights, behind TensorFlow 1's bilinear resize.

Simonyan & Zisserman 2014, arXiv:1409.1556. The features are the second hidden layer's after its ReLU (`fc2_relu`), as
in torch-fidelity; StyleGAN's precision and recall take the same layer of NVIDIA's TorchScript export, which has other
weights, and so other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.errors import UserError
from bench.metrics.network import IMAGENET, NetworkExtractor, Normalised, tensorflow_resize
from bench.metrics.weights_file import Published, as_float32, read_state

PUBLISHED = Published(
    "VGG16",
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af",  # what its name ends with
)
_SIZE = 224


class Vgg16Extractor(NetworkExtractor):
    """`vgg16`: 4096 features."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        super().__init__("vgg16", PUBLISHED, weights, device)

    @classmethod
    def open(cls, weights: Path | None, device: str = "cpu") -> Vgg16Extractor:
        """With the weights given, else those in the cache, else downloaded into it."""
        return cls(weights if weights is not None else PUBLISHED.found(), device)

    def read(self, weights: Path) -> dict[str, Tensor]:
        """torchvision's state dict."""
        state = read_state(weights, PUBLISHED)
        shape = tuple(state["classifier.3.weight"].shape) if "classifier.3.weight" in state else None
        if shape != (4096, 4096):
            raise UserError(
                f"VGG16 weights: expected torchvision's classifier.3.weight (4096, 4096) in {weights}, got {shape}; "
                + PUBLISHED.how()
            )
        return state

    def trunk(self) -> nn.Module:
        """The convolutional layers, torchvision's `features`: normalised images to maps."""
        return self.net.get_submodule("net.features")

    def described(self) -> Mapping[str, Any]:
        """Architecture, layer and resize."""
        return {
            "architecture": "torchvision vgg16",
            "layers": "fc2_relu",
            "resize": tensorflow_resize(_SIZE),
            "normalised": "ImageNet mean and deviation",
        }

    def build(self, state: dict[str, Tensor]) -> nn.Module:
        """torchvision's network up to `fc2_relu`."""
        from torchvision.models import vgg16

        with torch.device("meta"):  # no time for initial values that are not kept
            net = vgg16()
        net.load_state_dict(as_float32(state), assign=True)
        net.classifier = net.classifier[:5]
        return Normalised(net, _SIZE, IMAGENET)

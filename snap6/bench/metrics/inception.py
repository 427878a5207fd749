"""Inception v3 as FID defines it: torch-fidelity's network with the weights that TensorFlow published in 2015.

Szegedy et al. 2015, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500. The weights come in no package: from a
file that the user names, from torch's cache, or by download when Inception is asked for by name.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.errors import UserError
from bench.metrics.network import NetworkExtractor, tensorflow_resize
from bench.metrics.weights_file import Published, read_state

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
PUBLISHED = Published(
    "Inception",
    WEIGHTS_FILE,
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_FILE}",
    "6726825d",  # what its name ends with
)
_LAYERS = ["2048", "logits_unbiased"]


def cached_weights() -> Path:
    """Where torch.hub, and so torch-fidelity, keeps the weights."""
    return PUBLISHED.cached()


class InceptionExtractor(NetworkExtractor):
    """`inception`: 2048 pooled features and 1008 logits without bias, with TensorFlow 1's bilinear resize."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        super().__init__("inception", PUBLISHED, weights, device)

    @classmethod
    def open(cls, weights: Path | None, device: str = "cpu") -> InceptionExtractor:
        """With the weights given, else those in the cache, else downloaded into it.

        Raises:
            UserError: if there are none, or they are not Inception's.
        """
        return cls(weights if weights is not None else PUBLISHED.found(), device)

    def read(self, weights: Path) -> dict[str, Tensor]:
        """The state dict in the file."""
        return read_weights(weights)

    def described(self) -> Mapping[str, Any]:
        """Layers and resize."""
        return {"resize": tensorflow_resize(299), "layers": ", ".join(_LAYERS)}

    def build(self, state: dict[str, Tensor]) -> nn.Module:
        """torch-fidelity's extractor; it unpickles whatever it is given, so it gets our own copy of the tensors."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # imports torchvision

        copy = io.BytesIO()
        torch.save(dict(state), copy)
        copy.seek(0)
        net: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", _LAYERS, feature_extractor_weights_path=copy
        )
        return net


def read_weights(path: Path) -> dict[str, Tensor]:
    """Inception's state dict.

    Raises:
        UserError: if the file cannot be read or holds something else.
    """
    state = read_state(path, PUBLISHED)
    shape = tuple(state["fc.weight"].shape) if "fc.weight" in state else None
    if shape != (1008, 2048):
        how = PUBLISHED.how()
        raise UserError(f"Inception weights: expected fc.weight (1008, 2048) in {path}, got {shape}; {how}")
    return state

"""Inception v3 as FID defines it: torch-fidelity's network with the weights that TensorFlow published in 2015.

Szegedy et al. 2015, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500. The weights come in no package: from a
file that the user names, from torch's cache, or by download when Inception is asked for by name.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from baselines.data.likelihood import to_256
from baselines.errors import UserError
from bench.metrics.base import Features

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256_START = "6726825d"  # of the published file, which its name ends with
_LAYERS = ["2048", "logits_unbiased"]
_BATCH = 50
_HOW = (
    f"give the file by --weights PATH, or put {WEIGHTS_FILE} (a release file of torch-fidelity) into torch's "
    "cache of checkpoints"
)


def cached_weights() -> Path:
    """Where torch.hub, and so torch-fidelity, keeps the weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE


class InceptionExtractor:
    """`inception`: 2048 pooled features and 1008 logits without bias, with TensorFlow 1's bilinear resize."""

    name = "inception"

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        self.weights = weights
        self.device = device
        self.state = read_weights(weights)
        self.sha256 = _sha256(weights)

    @classmethod
    def open(cls, weights: Path | None, device: str = "cpu") -> InceptionExtractor:
        """With the weights given, else those in the cache, else downloaded into it.

        Raises:
            UserError: if there are none, or they are not Inception's.
        """
        return cls(weights if weights is not None else _cached_or_downloaded(), device)

    def identity(self) -> Mapping[str, Any]:
        """Weights hash, resize, scaling, dtype."""
        return {
            "weights_sha256": self.sha256,
            "resize": "299x299, TensorFlow 1 bilinear (torch-fidelity)",
            "pixels": "levels rescaled to 0..255, grey repeated to RGB",
            "dtype": "float32, features float64",
            "layers": ", ".join(_LAYERS),
            "version": 1,
        }

    @cached_property
    def net(self) -> nn.Module:
        """The network, built at first use: three seconds that a list of cells need not pay."""
        return build(self.state).to(self.device)

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features (N, 2048) and logits (N, 1008) of uint8 images (N, 1 or 3, H, W)."""
        values, logits = np.empty((len(images), 2048)), np.empty((len(images), 1008))
        first = 0
        # a GPU would else convolve in TF32, whose 10 bits of mantissa move the features by 1e-3
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            for x in torch.split(images, _BATCH):
                pooled, scores = self.net(as_rgb(x, levels).to(self.device))
                rows = slice(first, first + len(x))
                values[rows], logits[rows] = pooled.cpu().numpy(), scores.cpu().numpy()
                first += len(x)
        return Features(values, logits)


def as_rgb(images: Tensor, levels: int) -> Tensor:
    """uint8 (N, 1 or 3, H, W) with levels 0 .. levels - 1 to uint8 (N, 3, H, W) over 0 .. 255."""
    return to_256(images, levels).expand(-1, 3, -1, -1)


def build(state: Mapping[str, Tensor]) -> nn.Module:
    """torch-fidelity's extractor with these weights, in evaluation mode.

    Its constructor unpickles whatever file it is given, so it gets our own copy of the tensors in memory.

    Raises:
        UserError: if the weights do not fit the network.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import (
        FeatureExtractorInceptionV3,
    )  # imports torchvision

    copy = io.BytesIO()
    torch.save(dict(state), copy)
    copy.seek(0)
    try:
        net: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", _LAYERS, feature_extractor_weights_path=copy
        )
    except RuntimeError as error:
        first = str(error).splitlines()[:3]
        raise UserError(f"Inception weights: they do not fit the network ({' '.join(first)}); {_HOW}") from None
    return net


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth or .safetensors file; code in a pickle is never run.

    Raises:
        UserError: if the file cannot be read or holds something else.
    """
    if not path.is_file():
        raise UserError(f"Inception weights: expected a file, got {path}; {_HOW}")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"Inception weights: {path} is no file of plain tensors ({reason}); {_HOW}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise UserError(f"Inception weights: expected a state dict in {path}, got {type(state).__name__}; {_HOW}")
    shape = tuple(state["fc.weight"].shape) if "fc.weight" in state else None
    if shape != (1008, 2048):
        raise UserError(f"Inception weights: expected fc.weight (1008, 2048) in {path}, got {shape}; {_HOW}")
    return state


def _cached_or_downloaded() -> Path:
    path = cached_weights()
    if path.is_file():
        return path
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # to a name of its own first: a file under the cached name is a whole one
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            partial = Path(folder) / WEIGHTS_FILE
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(partial), WEIGHTS_SHA256_START, progress=False)
            partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise UserError(f"Inception weights: not in the cache and not to be downloaded ({error}); {_HOW}") from None
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

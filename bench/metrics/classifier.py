"""A small convolutional classifier whose penultimate layer serves as feature space for one data set.

Where the data's images have attributes (a colour, a stroke's width), it has a head for each, and judges which values an
image shows. Trained by `bench.metrics.train_classifier` on the train split, shipped as safetensors with a JSON
manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.data.likelihood import to_unit
from baselines.errors import UserError
from bench.metrics.base import Array, Features

FEATURES = 64
CLASSES = 10
FOLDER = Path(__file__).parent / "weights"
_BATCH = 500


@dataclass(frozen=True)
class Spec:
    """The net for one data set: a 3x3 convolution for each width, some followed by a pooling of 2x2."""

    name: str  # as an extractor
    dataset: str  # whose train split it learns from
    height: int
    width: int
    widths: tuple[int, ...]
    pooled: tuple[bool, ...]
    channels: int = 1
    heads: tuple[tuple[str, int], ...] = (("class", CLASSES),)  # what is told of an image: name and number of values

    @property
    def attributes(self) -> bool:
        """Whether it tells the attributes that the data set gives, and not the class alone."""
        return self.heads != (("class", CLASSES),)

    @property
    def classes(self) -> slice:
        """Where the logits of the digit stand, or else of the first head."""
        sizes = dict(self.heads)
        name = "digit" if "digit" in sizes else self.heads[0][0]
        first = sum(sizes[before] for before, _ in self.heads[: [*sizes].index(name)])
        return slice(first, first + sizes[name])

    @property
    def chw(self) -> tuple[int, int, int]:
        """Of the images that it takes."""
        return self.channels, self.height, self.width


_DIGIT = (("digit", CLASSES),)  # the class as an attribute, which a translation is to keep
DOMAIN_HEADS = (("ink", 4), ("inverted", 2), ("stroke", 3), ("digit", CLASSES))
_CAPTIONED = (("digit", CLASSES), ("ink", 6), ("ground", 6))

SPECS: Mapping[str, Spec] = {
    "digits-cnn": Spec("digits-cnn", "digits", 8, 8, (32, 64, 64), (False, True, False)),
    "mnist-cnn": Spec("mnist-cnn", "mnist", 28, 28, (32, 64, 64), (True, True, True)),
    "digits-large-cnn": Spec("digits-large-cnn", "digits-large", 16, 16, (32, 48, 48), (True, True, False)),
    "mnist-large-cnn": Spec("mnist-large-cnn", "mnist-large", 32, 32, (24, 48, 48), (True, True, True)),
    "digits-outline-cnn": Spec(
        "digits-outline-cnn", "digits-outline", 16, 16, (32, 48, 48), (True, True, False), heads=_DIGIT
    ),
    "mnist-outline-cnn": Spec(
        "mnist-outline-cnn", "mnist-outline", 32, 32, (24, 48, 48), (True, True, True), heads=_DIGIT
    ),
    "digits-to-mnist-cnn": Spec(
        "digits-to-mnist-cnn", "digits-to-mnist", 16, 16, (32, 48, 48), (True, True, False), heads=_DIGIT
    ),
    "digits-domains-cnn": Spec(
        "digits-domains-cnn", "digits-domains", 16, 16, (32, 48, 48), (True, True, False), 3, DOMAIN_HEADS
    ),
    "mnist-domains-cnn": Spec(
        "mnist-domains-cnn", "mnist-domains", 32, 32, (24, 48, 48), (True, True, True), 3, DOMAIN_HEADS
    ),
    "digits-captioned-cnn": Spec(
        "digits-captioned-cnn", "digits-captioned", 16, 16, (32, 48, 48), (True, True, False), 3, _CAPTIONED
    ),
    "mnist-captioned-cnn": Spec(
        "mnist-captioned-cnn", "mnist-captioned", 32, 32, (24, 48, 48), (True, True, True), 3, _CAPTIONED
    ),
}


class Classifier(nn.Module):
    """Convolutions, a hidden layer of 64 features after a ReLU, ten logits (or those of all attributes in a row).

    Max pooling and batch norm make features that answer to noise, blur and broken strokes as well as to class;
    with strides or without batch norm, independent pixels look half as far from digits.
    """

    scale: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, height, width = spec.chw
        for out, pooled in zip(spec.widths, spec.pooled, strict=True):
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
            if pooled:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        self.trunk = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * height * width, FEATURES)
        self.head = nn.Linear(FEATURES, sum(values for _, values in spec.heads))
        # makes the total variance of the train split's features a fixed number, see train_classifier
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Features (B, 64) before the scale, and logits (B, all heads' values), of x (B, C, H, W) in [0, 1]."""
        h = self.trunk(2 * x - 1).flatten(1)
        features = F.relu(self.hidden(F.dropout(h, dropout, self.training)))
        return features, self.head(F.dropout(features, dropout, self.training))


def batches(images: Tensor, levels: int, device: str) -> Iterator[Tensor]:
    """uint8 images as float32 in [0, 1], batch by batch, on the device."""
    for batch in torch.split(images, _BATCH):
        yield to_unit(batch.to(device), levels)


class ClassifierExtractor:
    """`digits-cnn` or `mnist-cnn`: float32 forward passes, float64 features."""

    def __init__(self, spec: Spec, device: str = "cpu", folder: Path = FOLDER) -> None:
        self.name = spec.name
        self.spec = spec
        self.device = device
        self.manifest, tensors = _read(spec, folder)
        self.net = Classifier(spec)
        try:
            self.net.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(f"extractor {spec.name}: its weights do not fit the network; reinstall: {error}") from None
        self.net.eval().requires_grad_(False).to(device)

    def identity(self) -> Mapping[str, Any]:
        """Weights hash, resize, scaling, dtype and the accuracy on the test split."""
        return {
            "weights_sha256": self.manifest["sha256"],
            "test_accuracy": self.manifest["accuracy"]["test"],
            "resize": "none",
            "pixels": "level / (levels - 1)",
            "dtype": "float32, features float64",
            "d": FEATURES,
            "version": 1,
        }

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features (N, 64) and the digit's logits, or the first head's, such as (N, 10), of uint8 images (N, C, H, W).

        Raises:
            UserError: if the images have another shape than those that the classifier learnt from.
        """
        values, logits = self._both(images, levels)
        return Features(values, logits[:, self.spec.classes])

    def judge(self, images: Tensor, levels: int) -> dict[str, Array]:
        """Log-probability of each value of each attribute, (N, values) by its name, of uint8 images (N, C, H, W)."""
        ends = np.cumsum([values for _, values in self.spec.heads])[:-1]
        parts = np.split(self._both(images, levels)[1], ends, axis=1)
        return {name: log_softmax(part, axis=1) for (name, _), part in zip(self.spec.heads, parts, strict=True)}

    def _both(self, images: Tensor, levels: int) -> tuple[Array, Array]:
        if tuple(images.shape[1:]) != self.spec.chw:
            raise UserError(f"extractor {self.name}: expected images {self.spec.chw}, got {tuple(images.shape[1:])}")
        values = np.empty((len(images), FEATURES))
        logits = np.empty((len(images), self.net.head.out_features))
        first = 0
        # a GPU would else convolve in TF32, whose 10 bits of mantissa move the features by 1e-3
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            for x in batches(images, levels, self.device):
                h, scores = self.net(x)
                rows = slice(first, first + len(x))
                values[rows], logits[rows] = (h * self.net.scale).cpu().numpy(), scores.cpu().numpy()
                first += len(x)
        return values, logits


def _read(spec: Spec, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The manifest and the weights, checked against each other."""
    weights, manifest = folder / f"{spec.name}.safetensors", folder / f"{spec.name}.json"
    try:
        content = weights.read_bytes()
        told: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        found = hashlib.sha256(content).hexdigest()
        if found != told["sha256"]:
            raise UserError(f"extractor {spec.name}: expected SHA-256 {told['sha256']} of {weights}, got {found}")
        return told, load_tensors(content)
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise UserError(
            f"extractor {spec.name}: its weights cannot be read ({error}); reinstall, or train them by "
            f"`python -m bench.metrics.train_classifier {spec.dataset}`"
        ) from None

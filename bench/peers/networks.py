"""One network in the form that each library takes it, with the same weights in all of them.

`small` is a network of one convolution, so that everything but the network is what takes time; `inception` is Inception
v3 with random weights, which no library has to download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bench.peers.inception_weights import save_weights

_PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"  # under which name pytorch-fid and clean-fid look for weights
_SMALL = "small-of-peers"
SIDE, FEATURES, LOGITS = 64, 512, 100


@dataclass(frozen=True)
class Forms:
    """How each library is given the network. All are called anew for each evaluation, as building it is part of one.

    Attributes:
        ours: arguments of `bench.evaluate`.
        fidelity: arguments of `torch_fidelity.calculate_metrics`.
        clean_fid: a function of (B, 3, H, W) in 0 .. 255 to features (B, d), as `build_feature_extractor` gives it.
        pytorch_fid: a module of (B, 3, H, W) in 0 .. 1 to a list of one (B, d, 1, 1).
        torchmetrics: a module to features and a module to logits, of uint8 (B, 3, H, W).
        dims: d.
    """

    ours: Callable[[], dict[str, Any]]
    fidelity: Callable[[], dict[str, Any]]
    clean_fid: Callable[[], Callable[[Tensor], Tensor]]
    pytorch_fid: Callable[[], nn.Module]
    torchmetrics: Callable[[], tuple[nn.Module, nn.Module]]
    dims: int


class Small(nn.Module):
    """Features (B, 512) and logits (B, 100) of images (B, 3, 64, 64) in 0 .. 255."""

    name = _SMALL
    num_features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(3, 64, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(SIDE * SIDE, FEATURES), nn.ReLU()
            )
            self.head = nn.Linear(FEATURES, LOGITS)
            nn.init.normal_(self.head.weight)
        self.eval().requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """The features alone."""
        out: Tensor = self.body(x.float() / 255)
        return out

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Both, as `bench.evaluate` takes a module."""
        features = self.features(x)
        return {"features": features, "logits": self.head(features)}


class _Of(nn.Module):
    """One output of the small network."""

    def __init__(self, net: Small, output: str) -> None:
        super().__init__()
        self.net, self.output, self.num_features = net, output, FEATURES

    def forward(self, x: Tensor) -> Tensor:
        """Features or logits."""
        return self.net(x)[self.output] if self.output == "logits" else self.net.features(x)


class _InUnit(nn.Module):
    """The small network as pytorch-fid calls one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Small()

    def forward(self, x: Tensor) -> list[Tensor]:
        """A list of one block's output."""
        return [self.net.features(255 * x)[:, :, None, None]]


class SmallOfFidelity(FeatureExtractorBase):  # type: ignore[misc]
    """The small network as torch-fidelity registers one."""

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)
        self.net = Small()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Its layers."""
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """IS takes logits."""
        return "logits" if metric == "isc" else "features"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Those that were asked for, in that order."""
        found = self.net(x)
        return tuple(found[name] for name in self.features_list)


def small() -> Forms:
    """The small network."""
    _register()
    return Forms(
        ours=lambda: {"extractor": Small()},
        fidelity=lambda: {"feature_extractor": _SMALL},
        clean_fid=lambda: Small().features,
        pytorch_fid=_InUnit,
        torchmetrics=lambda: (_Of(Small(), "features"), _Of(Small(), "logits")),
        dims=FEATURES,
    )


@cache
def _register() -> None:
    register_feature_extractor(_SMALL, SmallOfFidelity)


def inception(folder: Path) -> Forms:
    """Inception v3 with random weights, which are put into the folder."""
    weights = save_weights(folder)
    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / _PUBLISHED).symlink_to(weights)

    def clean() -> Callable[[Tensor], Tensor]:
        from cleanfid.features import build_feature_extractor

        with _hub(folder / "hub"):
            found: Callable[[Tensor], Tensor] = build_feature_extractor(
                "legacy_pytorch", torch.device("cpu"), use_dataparallel=False
            )
        return found

    def plain() -> nn.Module:
        from pytorch_fid.inception import InceptionV3

        with _hub(folder / "hub"):
            net: nn.Module = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
        return net.eval()

    def lightning() -> tuple[nn.Module, nn.Module]:
        from torchmetrics.image.fid import NoTrainInceptionV3

        nets = [NoTrainInceptionV3("inception-v3-compat", [layer], str(weights)) for layer in _LAYERS]
        for net in nets:
            net.num_features = 2048
        return nets[0], nets[1]

    return Forms(
        ours=lambda: {"extractor": "inception", "weights": weights},
        fidelity=lambda: {"feature_extractor_weights_path": str(weights)},
        clean_fid=clean,
        pytorch_fid=plain,
        torchmetrics=lightning,
        dims=2048,
    )


_LAYERS = "2048", "logits_unbiased"


@contextmanager
def _hub(folder: Path) -> Iterator[None]:
    """torch.hub looks for weights here before it would download them."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(folder)
    try:
        yield
    finally:
        torch.hub.set_dir(before)

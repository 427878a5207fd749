"""MADE: an autoencoder whose weights are masked so that outputs see earlier inputs alone (Germain et al. 2015).

arXiv:1502.03509: masks by degrees, strict at the output, several hidden layers, direct connections, any order (sec. 4).
The degrees of hidden units are spread evenly, where the paper draws them at random, and neither order nor masks change
during training (its order- and connectivity-agnostic variants). Beyond it: more levels than two. Departures for small
data: dropout and averaged weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.autoregression import raster_order
from baselines.autoregressive.belief_net import BeliefNet, BeliefNetConfig, StepsOfNet
from baselines.contract import ImageShape, Model, Training
from baselines.errors import UserError
from baselines.nets.made import MaskedMlp

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


@dataclass(frozen=True)
class Config(BeliefNetConfig):
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    hidden: tuple[int, ...] = (2000,)  # widths of the hidden layers
    direct: bool = False  # linear connections from inputs to outputs
    activation: Literal["relu", "silu"] = "relu"  # relu is the paper's
    order: Literal["natural", "random"] = "natural"  # of the pixels; colours within a pixel stay R, G, B
    order_seed: int = 0  # of the random order
    dropout: float = 0.6  # of hidden units
    weight_decay: float = 0.1
    lr: float = 3e-3
    training: Training = Training(batch_size=32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"made: expected at least one hidden layer of width >= 1, got {list(self.hidden)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"made: expected dropout in [0, 1), got {self.dropout}")


class Made(BeliefNet):
    """A perceptron masked by degrees."""

    net: MaskedMlp

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, shuffled(shape, config.order_seed) if config.order == "random" else None)
        self.net = MaskedMlp(
            shape.dims,
            config.hidden,
            self.output.numbers,
            features=self.features,
            direct=config.direct,
            dropout=config.dropout,
            activation=_ACTIVATIONS[config.activation],
        )

    def memory(self, n: int) -> StepsOfNet:
        """Hidden units, each computed when the last of its inputs is known."""
        return self.net.steps(n)


def shuffled(shape: ImageShape, seed: int) -> Tensor:
    """int64 (D,): the flat places in (C, H, W) by pixels in a random order, then colours."""
    pixels = raster_order(shape).view(-1, shape.channels)
    return pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))].reshape(-1)


MODEL = Model("MADE", "Germain et al. 2015, arXiv:1502.03509", Config, Made)

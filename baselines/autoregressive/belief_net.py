"""What fully visible belief networks share: levels as inputs, outputs as probabilities of levels, steps.

A network maps the encoded dimensions (B, D, E) to P numbers of each, (B, P, D). With few levels these are the logits of
a softmax, or one logit for two levels, as in the papers on binary data. With many they are a mixture of logistics
rounded to the levels (Salimans et al. 2017, arXiv:1701.05517, eq. 1-2), of which each colour has its own; colours
depend on each other as all dimensions do, through the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregression import Autoregressive, Steps, raster_order
from baselines.contract import Given, ImageShape, Phase, Training
from baselines.data.likelihood import logistic_mixture, logistic_mixture_levels, to_unit
from baselines.errors import UserError

OutputName = Literal["auto", "softmax", "logistics"]
InputName = Literal["scaled", "levels", "ladder"]

_FEW_LEVELS = 32  # at most so many have a softmax, unless the config says otherwise
_LEAST_LOG_SCALE = -7.0  # of a logistic, on the [-1, 1] scale (Salimans et al.'s code)


def encode(x: Tensor, levels: int, inputs: InputName, dtype: torch.dtype) -> Tensor:
    """Levels (B, ...) as features (B, ..., E) in [0, 1], piecewise linear in real x; the level itself if there are two.

    scaled: the level divided by the largest, E = 1. levels: one-hot without level 0, E = levels - 1, of real x a hat
    function for each. ladder: feature j says whether x >= j, E = levels - 1, rising from j - 1 to j.
    """
    if inputs == "scaled":
        return to_unit(x, levels, dtype)[..., None]
    above = x.to(dtype)[..., None] - torch.arange(1, levels, device=x.device, dtype=dtype)
    return (1 - above.abs()).clamp(min=0) if inputs == "levels" else (1 + above).clamp(0, 1)


def features(levels: int, inputs: InputName) -> int:
    """E of `encode`."""
    return 1 if inputs == "scaled" else levels - 1


class Output(ABC):
    """How P numbers of a dimension become log-probabilities of its levels."""

    numbers: int  # P

    @abstractmethod
    def log_p(self, y: Tensor) -> Tensor:
        """(B, P, ...) to log P of each level, (B, levels, ...)."""

    @abstractmethod
    def nats(self, y: Tensor, x: Tensor) -> Tensor:
        """-log P of the levels x (B, ...) given y (B, P, ...)."""


class Bernoulli(Output):
    """Two levels: P(x = 1) = sigmoid(y)."""

    numbers = 1

    def log_p(self, y: Tensor) -> Tensor:
        """Of 0 and of 1."""
        return torch.cat([F.logsigmoid(-y), F.logsigmoid(y)], 1)

    def nats(self, y: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.binary_cross_entropy_with_logits(y[:, 0], x.to(y.dtype), reduction="none")


class Softmax(Output):
    """P(x) proportional to exp(y_x)."""

    def __init__(self, levels: int) -> None:
        self.numbers = levels

    def log_p(self, y: Tensor) -> Tensor:
        """Of every level."""
        return y.log_softmax(1)

    def nats(self, y: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(y, x.long(), reduction="none")


class Logistics(Output):
    """A mixture of K rounded logistics; y = 0 spreads their means over the range."""

    def __init__(self, levels: int, components: int) -> None:
        self.numbers = 3 * components
        self.levels = levels
        self.places = [(2 * i + 1) / components - 1 for i in range(components)]

    def log_p(self, y: Tensor) -> Tensor:
        """Of every level."""
        return logistic_mixture_levels(*self._parameters(y), self.levels)

    def nats(self, y: Tensor, x: Tensor) -> Tensor:
        """Of the levels that are there alone, which is less work."""
        return -logistic_mixture(x, *self._parameters(y), self.levels)

    def _parameters(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_weights, mean, log_scale = y.chunk(3, 1)
        places = torch.tensor(self.places, dtype=y.dtype, device=y.device)
        places = places.view(-1, *[1] * (y.ndim - 2))
        return log_weights, places + mean, (log_scale - 1).clamp(min=_LEAST_LOG_SCALE)


def output(levels: int, name: OutputName, components: int) -> Output:
    """The output of this name; `auto` is a softmax of few levels and a mixture of many."""
    if name == "logistics" or (name == "auto" and levels > _FEW_LEVELS):
        return Logistics(levels, components)
    return Bernoulli() if levels == 2 else Softmax(levels)


class StepsOfNet(Protocol):
    """What a network has made of the dimensions that it was told."""

    def outputs(self, k: int) -> Tensor:
        """The P outputs (n, P) of the k-th dimension in order, once all before it have been told."""

    def tell(self, k: int, value: Tensor) -> None:
        """The encoded value (n, E) of the k-th dimension in order; k = 0, 1, 2, ... in turn."""


@dataclass(frozen=True)
class BeliefNetConfig:
    """What all of them can be told; a model's own config has the defaults that fit it."""

    output: OutputName = "auto"  # softmax of up to 32 levels, else logistics
    components: int = 5  # K, of the mixture of logistics
    inputs: InputName = "scaled"  # scaled | levels (one-hot) | ladder (x >= 1, x >= 2, ...)
    input_dropout: float = 0.0  # of whole dimensions, in what the others see of them
    weight_decay: float = 0.0  # decoupled (AdamW)
    lr: float = 1e-3
    warmup: float = 0.05  # fraction of the budget
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        if self.components < 1:
            raise UserError(f"belief network: expected components >= 1, got {self.components}")
        if not 0 <= self.input_dropout < 1:
            raise UserError(f"belief network: expected input_dropout in [0, 1), got {self.input_dropout}")
        if self.weight_decay < 0:
            raise UserError(f"belief network: expected weight_decay >= 0, got {self.weight_decay}")


class BeliefNet(Autoregressive):
    """log P(x) = sum_k log P(x_k | x_<k) with a network `net` of the encoded dimensions, which stand in order."""

    config: BeliefNetConfig
    net: nn.Module
    _order: Tensor
    _rank: Tensor

    def __init__(self, shape: ImageShape, config: BeliefNetConfig, order: Tensor | None = None) -> None:
        """order: int64 (D,), which dimension is k-th; None: rows, columns, then colours."""
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.output = output(shape.levels, config.output, config.components)
        self.features = features(shape.levels, config.inputs)
        self.input_dropout = nn.Dropout1d(config.input_dropout)
        order = raster_order(shape) if order is None else order
        self.register_buffer("_order", order)
        self.register_buffer("_rank", order.argsort())

    @property
    def order(self) -> Tensor:
        """Which dimension is k-th."""
        return self._order

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood, as the base has it, with weight decay if the config has it."""
        (phase,) = super().phases()
        optimiser = replace(phase.optimiser, name="adamw", weight_decay=self.config.weight_decay)
        return (phase if self.config.weight_decay == 0 else replace(phase, optimiser=optimiser),)

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """By the output's rule, of all levels."""
        log_p = self.output.log_p(self._in_order(x.flatten(1)[:, self._order]))[:, :, self._rank]
        return log_p.view(*log_p.shape[:2], *self.shape.chw)

    def dimension_nats(self, x: Tensor, given: Given | None = None) -> Tensor:
        """By the output's rule, of the levels that are there."""
        x = x.flatten(1)[:, self._order]
        return self.output.nats(self._in_order(x), x)[:, self._rank].view(-1, *self.shape.chw)

    def steps(self, n: int, given: Given | None = None) -> Steps:
        """Runs on the memory of the network."""
        return LevelSteps(self, self.memory(n))

    @abstractmethod
    def memory(self, n: int) -> StepsOfNet:
        """The network's empty memory for n images."""

    def encode(self, x: Tensor) -> Tensor:
        """Levels (B, ...) as the network's features (B, ..., E)."""
        return encode(x, self.shape.levels, self.config.inputs, next(self.net.parameters()).dtype)

    def _in_order(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(self.input_dropout(self.encode(x)))
        return y


class LevelSteps:
    """A network's memory that is told levels and tells log-probabilities."""

    def __init__(self, model: BeliefNet, memory: StepsOfNet) -> None:
        self.model, self.memory = model, memory

    def log_p(self, k: int) -> Tensor:
        """log P over the levels of the k-th dimension in order, (n, levels)."""
        return self.model.output.log_p(self.memory.outputs(k))

    def tell(self, k: int, value: Tensor) -> None:
        """The value uint8 (n,) of the k-th dimension in order; k = 0, 1, 2, ... in turn."""
        self.memory.tell(k, self.model.encode(value))

"""WaveNet: dilated causal convolutions over the flattened image (van den Oord et al. 2016, arXiv:1609.03499).

The pixels of an image, row by row with colours within a pixel, are one sequence; the network sees it shifted by one
place, so that its k-th output knows the values before the k-th. Gated layers tanh(.) sigmoid(.) (eq. 2) of kernel 2
with dilations 1, 2, 4, ... (fig. 3), residual and skip connections, ReLU and 1x1 layers to a softmax over the levels
(fig. 4). The dilations of one cycle together reach the whole sequence, so nothing is out of sight. Departures for
small data: the input is one number and not one-hot, learned biases for each position, dropout of whole features,
averaged weights. An option is a mixture of rounded logistics in place of the softmax (as van den Oord et al. 2017,
arXiv:1711.10433, sec. 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregression import Autoregressive
from baselines.contract import Given, ImageShape, Model, Training
from baselines.data.likelihood import logistic_mixture, logistic_mixture_levels, to_signed
from baselines.errors import UserError


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    width: int = 48  # features of a layer's residual stream
    skip: int = 96  # features of the sum of skip connections and of the last hidden layer
    cycles: int = 2  # times that the dilations are gone through
    mixtures: int = 0  # rounded logistics in the mixture of each value; 0: a softmax over the levels
    positions: bool = True  # learned biases for each position, in every layer
    dropout: float = 0.25  # of features, after each gate and before the last layer
    lr: float = 6e-3
    warmup: float = 0.05  # fraction of the budget
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        if self.width < 1 or self.skip < 1 or self.cycles < 1 or self.mixtures < 0:
            raise UserError(
                "wavenet: expected width, skip and cycles >= 1 and mixtures >= 0, "
                f"got {self.width}, {self.skip}, {self.cycles} and {self.mixtures}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"wavenet: expected dropout in [0, 1), got {self.dropout}")


def dilations(length: int) -> tuple[int, ...]:
    """One cycle over a sequence: 1, 2, 4, ... until their sum reaches from its last value to its first."""
    return tuple(2**k for k in range((length - 1).bit_length()))


class WaveNet(Autoregressive):
    """log P(x) = sum_k log P(x_k | x_1 .. x_{k-1}) over the values of the image as one sequence."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.net = DilatedStack(shape, config)

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The softmax, or the mixture, of each value."""
        return self._log_p(self._image(self.net(self._shifted(x))))

    def dimension_nats(self, x: Tensor, given: Given | None = None) -> Tensor:
        """As of every such model, along the sequence and without the levels that a mixture's pixels have not."""
        out, values = self.net(self._shifted(x)), x.flatten(1)[:, self.order]
        if self.config.mixtures:
            nats = -logistic_mixture(values, *self._mixture(out.mT), self.shape.levels)
        else:
            nats = F.cross_entropy(out.flatten(0, 1), values.flatten().long(), reduction="none")
        return self._image(nats.view(*values.shape, 1))[:, 0]

    def steps(self, n: int, given: Given | None = None) -> Stepper:
        """One value after another through the layers, each of which remembers as much as its dilation."""
        return Stepper(self, n)

    def scaled(self, x: Tensor) -> Tensor:
        """Levels to the numbers that the network is given, in the weights' precision."""
        return to_signed(x, self.shape.levels).to(self.net.first.weight.dtype)

    def _shifted(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) as a sequence (B, D) that begins with a 0 and lacks its last value."""
        return F.pad(self.scaled(x).flatten(1)[:, self.order[:-1]], (1, 0))

    def _image(self, out: Tensor) -> Tensor:
        """(B, D, outputs) to (B, outputs, C, H, W)."""
        channels, height, width = self.shape.chw
        return out.view(len(out), height, width, channels, -1).permute(0, 4, 3, 1, 2)

    def _log_p(self, out: Tensor) -> Tensor:
        """What the network says of values, (B, outputs, ...), to log P of each level, (B, levels, ...)."""
        if not self.config.mixtures:
            return out.log_softmax(1)
        return logistic_mixture_levels(*self._mixture(out), self.shape.levels)

    @staticmethod
    def _mixture(out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, not yet normalised, locations and log-scales in [-7, 3]: (B, K, ...) each."""
        weights, mean, raw = out.chunk(3, 1)
        return weights, mean, 5 * torch.tanh(raw / 5) - 2

    def log_p_of_step(self, out: Tensor) -> Tensor:
        """(n, outputs) of one place to (n, levels)."""
        return self._log_p(out[:, :, None])[:, :, 0]


class SequenceCache:
    """Ring buffers: what each layer was fed in as many last places as its dilation."""

    def __init__(self) -> None:
        """Nothing was fed yet; before the first place everything was 0."""
        self.place = 0
        self._fed: dict[CausalLayer, Tensor] = {}

    def exchange(self, layer: CausalLayer, h: Tensor) -> Tensor:
        """Store the layer's input (n, features) at `place`, and return what it was fed `dilation` places ago."""
        if layer not in self._fed:
            self._fed[layer] = h.new_zeros(layer.dilation, *h.shape)
        slot = self._fed[layer][self.place % layer.dilation]
        past = slot.clone()
        slot.copy_(h)
        return past

    def rings(self) -> tuple[Tensor, ...]:
        """All that is remembered: of each layer (dilation, n, features)."""
        return tuple(self._fed.values())


class CausalLayer(nn.Linear):
    """A causal convolution of kernel 2 over (B, D, features), with a learned bias for each place."""

    def __init__(self, into: int, out: int, dilation: int, length: int, positions: bool) -> None:
        super().__init__(2 * into, out)
        self.dilation = dilation
        self.position = nn.Parameter(torch.zeros(length, out)) if positions else None

    def forward(self, h: Tensor, cache: SequenceCache | None = None) -> Tensor:
        """(B, D, into) to (B, D, out); with a cache, its place alone: (B, into) to (B, out)."""
        past = F.pad(h, (0, 0, self.dilation, 0))[:, : h.shape[1]] if cache is None else cache.exchange(self, h)
        out = super().forward(torch.cat([past, h], -1))
        if self.position is None:
            return out
        return out + (self.position if cache is None else self.position[cache.place])


class DilatedStack(nn.Module):
    """From the shifted sequence to what is said of each value: logits of the levels, or a mixture's parameters."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        length, positions = shape.dims, config.positions
        self.first = CausalLayer(1, config.width, 1, length, positions)
        steps = dilations(length) * config.cycles
        self.gates = nn.ModuleList(
            CausalLayer(config.width, 2 * config.width, dilation, length, positions) for dilation in steps
        )
        self.outs = nn.ModuleList(nn.Linear(config.width, config.width + config.skip) for _ in steps)
        self.dropout = FeatureDropout(config.dropout)
        self.skip = config.skip
        self.hidden = nn.Linear(config.skip, config.skip)
        self.last = nn.Linear(config.skip, 3 * config.mixtures or shape.levels)

    def forward(self, x: Tensor, cache: SequenceCache | None = None) -> Tensor:
        """(B, D) to (B, D, outputs); with a cache, its place alone: (B,) to (B, outputs)."""
        h = self.first(x[..., None], cache)
        total = h.new_zeros(())
        for gate, out in zip(self.gates, self.outs, strict=True):
            filtered, gated = gate(h, cache).chunk(2, -1)
            z = out(self.dropout(torch.tanh(filtered) * torch.sigmoid(gated)))
            h = h + z[..., self.skip :]
            total = total + z[..., : self.skip]
        found: Tensor = self.last(self.dropout(F.relu(self.hidden(F.relu(total)))))
        return found


class FeatureDropout(nn.Module):
    """Drops whole features of (B, D, features), each in all places of an image."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, h: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or self.p == 0:
            return h
        return h * F.dropout(h.new_ones(len(h), 1, h.shape[-1]), self.p)


class Stepper:
    """`Steps` of a WaveNet: one place at a time through all layers."""

    def __init__(self, model: WaveNet, n: int) -> None:
        """Nothing is drawn yet of n images."""
        self.model = model
        self.cache = SequenceCache()
        self.before = model.net.first.weight.new_zeros(n)  # the value before the next place
        self.passed = 0  # places that went through the network

    def log_p(self, k: int) -> Tensor:
        """log P over the levels at place k, (n, levels)."""
        self.cache.place, self.passed = k, k + 1
        return self.model.log_p_of_step(self.model.net(self.before, self.cache))

    def tell(self, k: int, value: Tensor) -> None:
        """Its value; a place that was known, so not asked for, goes through the layers now."""
        if self.passed == k:
            self.log_p(k)
        self.before = self.model.scaled(value)


MODEL = Model("WaveNet", "van den Oord et al. 2016, arXiv:1609.03499", Config, WaveNet)

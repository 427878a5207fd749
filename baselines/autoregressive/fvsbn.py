"""FVSBN: each dimension is a logistic regression on those before it (Neal 1992, Artif. Intell. 56; Frey 1998).

On two levels P(x_k = 1 | x_<k) = sigmoid(b_k + sum_{j<k} W_kj x_j), the logistic autoregressive network. Beyond it, for
more levels: softmax regression, or a mixture of rounded logistics whose parameters are linear in what came before.
Departures for small data: dropout of inputs, weight decay and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from baselines.autoregressive.belief_net import BeliefNet, BeliefNetConfig, StepsOfNet
from baselines.contract import ImageShape, Model
from baselines.nets.made import MaskedMlp


@dataclass(frozen=True)
class Config(BeliefNetConfig):
    """How levels are seen and told, and the optimiser; the defaults are tuned for 8x8 digits."""

    input_dropout: float = 0.05
    lr: float = 1e-2


class Fvsbn(BeliefNet):
    """A perceptron without hidden layers whose weights see earlier dimensions alone."""

    net: MaskedMlp

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config)
        self.net = MaskedMlp(shape.dims, (), self.output.numbers, features=self.features)
        for parameter in self.net.parameters():
            nn.init.zeros_(parameter)  # convex for two levels or a softmax: no symmetry is to be broken

    def memory(self, n: int) -> StepsOfNet:
        """Sums over what has been drawn."""
        return self.net.steps(n)


MODEL = Model("FVSBN", "Neal 1992, Artificial Intelligence 56; Frey 1998, MIT Press", Config, Fvsbn)

"""Masked autoregressive flow: fast density, sampling in sequence (Papamakarios et al. 2017, arXiv:1705.07057).

Layers of MADE, each through the dimensions in the reverse of the one before, m and a made of x (sec. 3.1): log p is
one pass of each network, and drawing takes the dimensions in turn. Logit preprocessing (sec. 4.3). Departures for
small data: no batch norm between the layers (its statistics leak between images), but one elementwise layer that
standardises the first batch; dropout and averaged weights; on request random orders; log-scales that are bounded, so
that sampling cannot overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.contract import ImageShape, Model, Training
from baselines.flows.autoregressive_chain import Order, autoregressive_chain, check_autoregressive
from baselines.flows.logit_flow import LogitFlow
from baselines.nets.autoregressive_flow import MaskedAutoregressive
from baselines.nets.dequantiser import Dequantisation, DequantiserConfig


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    layers: int = 10  # masked networks, the first through the dimensions in raster order
    order: Order = "reversed"  # of each layer after it: the reverse of the one before, or drawn at random and kept
    order_seed: int = 0  # of the random orders
    width: int = 128  # units of each hidden layer of a network
    hidden_layers: int = 1
    alpha: float = 0.01  # images are squeezed into [alpha, 1 - alpha] before the logit
    dropout: float = 0.4  # of hidden units
    dequantisation: Dequantisation = "uniform"
    dequantiser: DequantiserConfig = DequantiserConfig()
    lr: float = 2e-3
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        check_autoregressive("maf", self)


class Maf(LogitFlow):
    """Conditions on the data: density in one pass, samples dimension by dimension."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, autoregressive_chain(MaskedAutoregressive, shape, config))


MODEL = Model("MAF", "Papamakarios et al. 2017, arXiv:1705.07057", Config, Maf)

"""Inverse autoregressive flow as a density model: fast sampling, density in sequence (Kingma et al. 2016).

arXiv:1606.04934, there the posterior of a VAE; here trained by maximum likelihood, as Papamakarios et al. 2017
(arXiv:1705.07057, sec. 3.3) compare it with MAF. m and a are made of the noise: an image is one pass of each network
(eq. 10, order reversed between them), but log p of data wants the noise first, whose dimensions come out in turn, and
training is by that. Departures as in MAF: one elementwise layer that standardises the first batch, logit
preprocessing, dropout, averaged weights, random orders on request, bounded log-scales; the networks are MADE, without
context.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.contract import ImageShape, Model, Training
from baselines.flows.autoregressive_chain import Order, autoregressive_chain, check_autoregressive
from baselines.flows.logit_flow import LogitFlow
from baselines.nets.autoregressive_flow import InverseAutoregressive
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
    training: Training = Training(batch_size=128)  # steps cost their number more than their size

    def __post_init__(self) -> None:
        check_autoregressive("iaf", self)


class Iaf(LogitFlow):
    """Conditions on the noise: samples in one pass, density dimension by dimension."""

    coupled = "its dropout is drawn unit by unit for all images of the batch"

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, autoregressive_chain(InverseAutoregressive, shape, config))


MODEL = Model("IAF", "Kingma et al. 2016, arXiv:1606.04934", Config, Iaf)

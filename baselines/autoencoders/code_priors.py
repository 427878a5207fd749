"""Priors p(z) of a VAE's codes that have a density: the standard normal one, and a mixture that is learned.

Kingma and Welling 2014 (arXiv:1312.6114) let the prior have parameters (section 2.1); that of their example has none
(section 3). A mixture of Gaussians is what Tomczak and Welling 2018 (arXiv:1705.07120) compare the VampPrior with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

CodePriorName = Literal["normal", "mixture"]
PACE = 5.0
"""Means are learned in units of this: an optimiser moves every weight by about its learning rate, and means have
several standard deviations to go where a network's weights move by hundredths."""


class CodePrior(nn.Module, ABC):
    """A distribution over codes whose density is known."""

    numbers: int
    """Standard normal numbers that one draw takes."""

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) in nats (B,) of codes (B, latent)."""

    @abstractmethod
    def draw(self, normal: Tensor) -> Tensor:
        """Standard normal numbers (B, numbers) to draws (B, latent), row by row."""

    def divergence(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """KL(q || p) in nats (B,) of q = N(mean, diag(std^2)), estimated without bias from one draw z of each q.

        All (B, latent). A subclass that has a closed form gives it.
        """
        log_q = log_standard_normal((z - mean) * (-log_std).exp()) - log_std.sum(1)
        return log_q - self.log_density(z)


class StandardNormal(CodePrior):
    """N(0, I); there is nothing to learn."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.numbers = latent

    def log_density(self, z: Tensor) -> Tensor:
        """log N(z; 0, I) in nats (B,)."""
        return log_standard_normal(z)

    def draw(self, normal: Tensor) -> Tensor:
        """The numbers themselves."""
        return normal

    def divergence(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """In closed form, whatever z."""
        return kl_to_standard_normal(mean, log_std)


class LearnedMixture(CodePrior):
    """K Gaussians with diagonal covariances, their weights learned as well."""

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        self.numbers = latent + 1
        self.scaled_means = nn.Parameter(torch.randn(components, latent) / PACE)
        self.log_stds = nn.Parameter(torch.zeros(components, latent))
        self.logits = nn.Parameter(torch.zeros(components))

    @property
    def means(self) -> Tensor:
        """(K, latent)."""
        return self.scaled_means * PACE

    def log_density(self, z: Tensor) -> Tensor:
        """log sum_k w_k N(z; mean_k, diag(std_k^2)) in nats (B,)."""
        standard = (z[:, None] - self.means) * (-self.log_stds).exp()
        each = -0.5 * (standard**2 + math.log(2 * math.pi)).sum(2) - self.log_stds.sum(1)
        return torch.logsumexp(self.logits.log_softmax(0) + each, 1)

    def draw(self, normal: Tensor) -> Tensor:
        """The last number decides the component, by the distribution function of the weights; the others the place."""
        share = torch.special.ndtr(normal[:, -1:])
        below = self.logits.softmax(0).cumsum(0)[:-1].to(normal)  # P(component <= 0), ...
        k = (share >= below).sum(1)
        return self.means[k].to(normal) + self.log_stds[k].exp().to(normal) * normal[:, :-1]


def code_prior(name: CodePriorName, latent: int, components: int) -> CodePrior:
    """The prior of this name; components are the mixture's alone."""
    return StandardNormal(latent) if name == "normal" else LearnedMixture(latent, components)


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, diag(std^2)) || N(0, I)) in nats (B,) (Kingma and Welling 2014, appendix B)."""
    return 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats (B,)."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)

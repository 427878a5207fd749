"""What a model may be able to do beside drawing images: types that the harness asks a model for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.given import Given, Requests
from baselines.noise import Noise
from baselines.types import Draw, Kind


@dataclass(frozen=True)
class Nats:
    """Negative log-likelihood per image in nats."""

    total: Tensor  # (B,)
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) each, summing to total where all are given
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # (B, C, H, W), where a per-pixel value exists
    curves: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T), where each timestep has a value
    standard_errors: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) of an estimated total, by cause
    changes: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) what a coarser calculation adds to the total


class HasLikelihood(ABC):
    """Has a number for -log P(x) of discrete images."""

    likelihoods: ClassVar[Mapping[str, Kind]]  # e.g. {"vlb": "upper_bound"}
    likelihoods_on_request: ClassVar[Mapping[str, Kind]] = {}
    """Those that cost too much to be taken unasked, e.g. {"pf_ode": "estimate"}."""

    @classmethod  # noqa: B027 - most have all that they name
    def check_likelihood(cls, config: Any, name: str) -> None:
        """Refuse a likelihood on request that a model of this config has not; asked before anything is trained.

        Raises:
            UserError: saying why.
        """

    @abstractmethod
    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """-log P(x) of uint8 x (B, C, H, W) by the likelihood called `name`."""


class HasDensity(ABC):
    """Has a density over continuous y in [0, 1]^D; discrete images are dequantised by `data.likelihood`."""

    @abstractmethod
    def log_density(self, y: Tensor) -> Tensor:
        """log p(y) in nats, (B,), of y (B, C, H, W) in (0, 1), with respect to Lebesgue measure on y."""


class Dequantises(HasDensity):
    """Says itself how discrete images become continuous, by a q(u | x) on [0, 1]^D; other densities get uniform u."""

    dequantisation: str
    """What q is, for the record: `uniform` or `variational`."""

    @abstractmethod
    def dequantise(self, x: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """One draw u ~ q(u | x), (B, C, H, W) in [0, 1], and log q(u | x) in nats (B,).

        x: uint8 (B, C, H, W). uniform: numbers in [0, 1), (B, C, H, W), the only randomness of the draw.
        """


@dataclass(frozen=True)
class Moments:
    """Of what a model draws, and of what it should draw, along axes on which both are uncorrelated; (D,) float64."""

    mean: Tensor
    variance: Tensor
    data_mean: Tensor
    data_variance: Tensor


class HasExactMoments(ABC):
    """Knows mean and covariance of its samples without drawing any, before they are rounded and clamped to levels."""

    @abstractmethod
    def exact_moments(self, draw: Draw) -> Moments:
        """Of what this draw makes, pixels in [-1, 1].

        Raises:
            UserError: if they are not known of this draw, saying why.
        """


class Reconstructs(ABC):
    """Maps an image to a code and back."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to uint8 (B, C, H, W)."""


class Translates(ABC):
    """Carries images of one domain to another, and back; both deterministic, each image by itself."""

    @abstractmethod
    def translate(self, x: Tensor) -> Tensor:
        """uint8 (B, C, H, W) of the source domain to uint8 (B, C, H, W) of the target's, levels 0 .. levels - 1."""

    @abstractmethod
    def back(self, y: Tensor) -> Tensor:
        """The other way: uint8 of the target domain to uint8 of the source's."""


class Encodes(ABC):
    """Makes a code of each image: a point of a space in which images can be compared."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to codes (B, K), real numbers; of an encoder that draws its codes their means.

        Row i depends on x_i alone.
        """


class HasPrior(Encodes):
    """Draws an image by decoding a draw of its prior, so that the codes of real images should look like such draws."""

    @abstractmethod
    def prior(self, n: int, noise: Noise) -> Tensor:
        """Draws of the prior, (n, K); row i depends on `noise` at global index noise.first + i alone."""

    def draw_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """A code of each image, (B, K), as in training: the code itself where it is not drawn."""
        return self.encode(x)


class HasLatent(ABC):
    """Makes an image of each point of a latent space, whose prior is standard normal."""

    latent: int
    """Dimensions of z."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """z (B, latent) to real-valued pixels (B, C, H, W) in [-1, 1], not rounded to levels.

        Row i depends on z_i alone. Both are in the dtype of the weights, and float64 must do: path lengths are
        differences too small for float32.
        """


@dataclass(frozen=True)
class Codes:
    """Latent codes of a model that names what they mean to it, a row an image."""

    category: Tensor  # (B,) int64, 0 .. K - 1, uniform
    continuous: Tensor  # (B, D), independent and uniform in [-1, 1]


@dataclass(frozen=True)
class Inferred:
    """Q(c|x): what an image tells of its codes, which are independent given it."""

    log_probabilities: Tensor  # (B, K) of the category
    mean: Tensor  # (B, D), of the normal distributions of the continuous codes
    log_std: Tensor  # (B, D)


class InfersCodes(ABC):
    """Draws images from codes and reads the codes off images: one category and a few continuous codes."""

    categories: int
    """K, values of the category; its entropy is log K nats."""

    continuous_codes: int
    """D; the entropy of each is log 2 nats."""

    @abstractmethod
    def draw_codes(self, n: int, noise: Noise) -> Codes:
        """Codes of n images from their prior; those of image i hang on `noise` at its index alone."""

    @abstractmethod
    def generate(self, codes: Codes, noise: Noise) -> Tensor:
        """uint8 images (B, C, H, W) that show these codes, the rest of the latent drawn from `noise`."""

    @abstractmethod
    def infer(self, x: Tensor) -> Inferred:
        """Q(c|x) of uint8 images (B, C, H, W), each by itself."""


class HasResolutions(ABC):
    """Draws images at several sizes."""

    resolutions: tuple[tuple[int, int], ...]
    """(height, width) of each, rising; the last is the images' own."""

    @abstractmethod
    def sample_at(self, resolution: int, n: int, noise: Noise) -> Tensor:
        """uint8 images (n, C, *resolutions[resolution]); the same noise gives the same latents at each."""


@dataclass(frozen=True)
class Strip:
    """A table of pictures with words: what a model shows of how it works."""

    title: str
    caption: str  # what to see, and what was measured on these very images
    rows: tuple[str, ...]  # a label each; empty where there is nothing to tell
    columns: tuple[str, ...]
    images: Tensor  # uint8 (rows, columns, C, H, W), levels 0 .. shape.levels - 1

    def __post_init__(self) -> None:
        wanted = len(self.rows), len(self.columns)
        if self.images.dtype != torch.uint8 or self.images.ndim != 5 or tuple(self.images.shape[:2]) != wanted:
            raise ValueError(
                f"strip {self.title!r}: expected uint8 images {(*wanted, 'C', 'H', 'W')}, "
                f"got {self.images.dtype} {tuple(self.images.shape)}"
            )


class Illustrates(ABC):
    """Shows how it works in pictures, made once from the trained weights; a few seconds' work."""

    @abstractmethod
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Strips made from uint8 test images (n, C, H, W), n at least 1, and from noise; no image is picked."""


class IllustratesRequests(ABC):
    """A conditional model that shows what it makes of what it is asked for."""

    @abstractmethod
    def pictures_of(self, requests: Requests, noise: Noise) -> tuple[Strip, ...]:
        """Strips made from the test split's first requests and from noise; no request is picked."""


class HasCritic(ABC):
    """Has a critic f of nearly unit slope: E f(x) - E f(G(z)) estimates how far its images are from real ones."""

    @abstractmethod
    def criticise(self, images: Tensor) -> Tensor:
        """f of real-valued images (B, C, H, W) in [-1, 1], (B,), differentiable, each of its own image alone."""


@dataclass(frozen=True)
class Line:
    """Numbers over numbers; finite, one y for each x."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    marks: bool = False  # marks instead of a line

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not self.x:
            raise ValueError(f"line {self.label!r}: expected as many y as x, got {len(self.y)} and {len(self.x)}")
        if not all(map(math.isfinite, (*self.x, *self.y))):
            raise ValueError(f"line {self.label!r}: expected finite numbers")


@dataclass(frozen=True)
class Panel:
    """One canvas of a chart."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Chart:
    """Lines in one or more panels of equal axes, with words: what a model shows of how it works, in numbers."""

    title: str
    caption: str  # what to see, and what was measured
    x: str  # what is told along the axes
    y: str
    panels: tuple[Panel, ...]
    log_y: bool = False


class HasCharts(ABC):
    """Shows how it works in numbers, once after training; a few seconds' work."""

    @abstractmethod
    def charts(self, real: Tensor, noise: Noise) -> tuple[Chart, ...]:
        """Charts made from uint8 test images (n, C, H, W), n at least 1, and from noise."""


class PlacesParts(ABC):
    """Draws images around key patches, and tells where in them it put these."""

    @abstractmethod
    def place(self, n: int, draw: Draw, noise: Noise, given: Given) -> tuple[Tensor, Tensor]:
        """The images that `sample` draws, uint8 (n, C, H, W), and masks (n, 1, H, W) in [0, 1]: inside of a patch is 1.

        given: its patches, one row an image.
        """


class TranslatesDomains(ABC):
    """Gives an image other attributes and keeps the rest; without chance, so that it can be asked to bring it back."""

    @abstractmethod
    def translate(self, images: Tensor, attributes: Tensor) -> Tensor:
        """uint8 (B, C, H, W) and the values int64 (B, A) that they are to get, to uint8 (B, C, H, W).

        Raises:
            UserError: if an attribute has no such value.
        """

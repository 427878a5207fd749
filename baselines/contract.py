"""What a model owes the harness: abstract capabilities, and the description every model file ends with."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.capabilities import (
    Chart,
    Codes,
    Dequantises,
    Encodes,
    HasCharts,
    HasCritic,
    HasDensity,
    HasExactMoments,
    HasLatent,
    HasLikelihood,
    HasPrior,
    HasResolutions,
    Illustrates,
    IllustratesRequests,
    Inferred,
    InfersCodes,
    Line,
    Moments,
    Nats,
    Panel,
    PlacesParts,
    Reconstructs,
    Strip,
    Translates,
    TranslatesDomains,
)
from baselines.config import nearest
from baselines.errors import UserError
from baselines.given import Given, Requests
from baselines.noise import Noise
from baselines.sharing import Share
from baselines.types import Conditions, Draw, ImageShape, Task

__all__ = [
    "Batch",
    "Chart",
    "Codes",
    "Conditions",
    "Context",
    "Dequantises",
    "Distils",
    "Draw",
    "Encodes",
    "Fits",
    "FitsExPost",
    "FitsLabelled",
    "GenerativeModel",
    "Given",
    "HasCharts",
    "HasCritic",
    "HasDensity",
    "HasExactMoments",
    "HasLatent",
    "HasLikelihood",
    "HasPrior",
    "HasResolutions",
    "Illustrates",
    "IllustratesRequests",
    "ImageShape",
    "Inferred",
    "InfersCodes",
    "Line",
    "Losses",
    "Model",
    "Moments",
    "Nats",
    "Noise",
    "OptimiserConfig",
    "Panel",
    "Phase",
    "PlacesParts",
    "Pretrained",
    "Reconstructs",
    "Replays",
    "Requests",
    "Strip",
    "Training",
    "Trains",
    "Translates",
    "TranslatesDomains",
]


_PLAIN = Draw()


@dataclass(frozen=True)
class Batch:
    """One training batch: uint8 images (B, C, H, W), labels (B,) int64 where the data has them."""

    images: Tensor
    labels: Tensor | None = None
    attributes: Tensor | None = None  # (B, A) int64, the values that the images have, where the data says
    given: Given | None = None  # of a conditional task; of a translation without pairs its rows are other images'
    masks: Tensor | None = None  # (B, 1, H, W) bool, where the key patches were cut out; known in training alone

    def part(self, share: Share) -> Batch:
        """The rows of one rank of several that train together."""
        if share.size == 1:
            return self
        index = torch.arange(share.rank * share.rows, (share.rank + 1) * share.rows, device=self.images.device)
        rows = (None if t is None else t[index] for t in (self.images, self.labels, self.attributes, self.masks))
        images, labels, attributes, masks = rows
        assert images is not None
        return Batch(images, labels, attributes, None if self.given is None else self.given.take(index), masks)


@dataclass(frozen=True)
class Context:
    """Where training stands. All randomness of a loss comes from `generator`, keyed by (seed, step, phase)."""

    step: int
    fraction: float  # of the budget done, in [0, 1]
    generator: torch.Generator
    device: torch.device
    share: Share = Share()  # which of the batch's images this process has

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers on the training device; the images come first in `shape`, as below."""
        return self._own(torch.randn(self.share.whole(shape), generator=self.generator), shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) on the training device."""
        return self._own(torch.rand(self.share.whole(shape), generator=self.generator), shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers 0 .. high - 1 on the training device."""
        return self._own(torch.randint(high, self.share.whole(shape), generator=self.generator), shape)

    def strata(self, n: int) -> Tensor:
        """Uniform numbers (n,), one in each of n equal parts of [0, 1), rising."""
        return self.share.strata(n, self.uniform)

    def _own(self, whole: Tensor, shape: tuple[int, ...]) -> Tensor:
        return (whole if not shape else self.share.part(whole, shape[0])).to(self.device)


@dataclass(frozen=True)
class Losses:
    """A phase's loss: `total` (0-d) is minimised, `parts` (0-d each) are only plotted."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimiserConfig:
    """One optimiser with its learning-rate schedule over the budget."""

    name: str = "adam"  # adam | adamw | sgd
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: float = 0.0  # fraction of the budget over which lr rises linearly from 0
    decay: str = "constant"  # constant | linear | cosine, down to lr * final
    final: float = 0.0
    rounds: int = 1  # the schedule is gone through so many times, each in an equal part of the budget


@dataclass(frozen=True)
class Training:
    """What the one trainer needs to know beside the phases."""

    batch_size: int = 64
    ema_decay: float = 0.999  # of the modules in `averaged`; warms up as (1 + step) / (10 + step)
    clip_norm: float | None = None  # largest gradient norm of a phase; None, or 0 in TOML: any
    validations: int = 20  # times the validation split is scored over the budget
    validation_images: int = 2000  # at most so many of the split's images, the same ones each time
    snapshots: int = 0  # times over the budget that images are drawn and kept, at equal distances, the end included
    snapshot_images: int = 256  # so many each time, of the same noise

    def __post_init__(self) -> None:
        if self.snapshots < 0:
            raise UserError(f"training.snapshots: expected 0 (none) or more, got {self.snapshots}")
        for name in ("batch_size", "validations", "validation_images", "snapshot_images"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"training.ema_decay: expected 0 (none) or more and below 1, got {self.ema_decay}")
        if self.clip_norm is not None and self.clip_norm < 0:
            raise UserError(f"training.clip_norm: expected a positive norm, or 0 for none, got {self.clip_norm}")
        if self.clip_norm == 0:  # TOML has no word for None
            object.__setattr__(self, "clip_norm", None)


@dataclass(frozen=True)
class Phase:
    """One update rule: minimise `loss` over the parameters of the named submodules, and of no others.

    It runs on every `every`-th iteration, `repeat` times, each time on a fresh batch (n_critic of a WGAN).
    """

    name: str
    modules: tuple[str, ...]
    loss: Callable[[Batch, Context], Losses]
    optimiser: OptimiserConfig
    every: int = 1
    repeat: int = 1


class GenerativeModel(nn.Module, ABC):
    """Draws images. Built as `build(shape, config)`; a subclass also is `Trains` or `Fits`."""

    samplers: ClassVar[tuple[str, ...]] = ("native",)
    network: ClassVar[str | None] = None
    """The submodule whose forward call is one function evaluation of sampling (NFE); None: it has none."""

    draw_keys: ClassVar[tuple[str, ...]] = ()
    """The fields of `Draw` beside `sampler` that its samplers take."""

    shape: ImageShape

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Refuse what this model cannot draw under this config; asked before anything is trained.

        Raises:
            UserError: for a sampler that it has not, or a setting that the sampler does not take.
        """
        if draw == _PLAIN and "native" in cls.samplers:
            return
        if draw.sampler not in cls.samplers:
            raise UserError(f"no sampler {draw.sampler!r}{nearest(draw.sampler, cls.samplers)}")
        for field_ in dataclasses.fields(Draw):
            value = getattr(draw, field_.name)
            if field_.name in ("sampler", *cls.draw_keys) or value == getattr(_PLAIN, field_.name):
                continue
            raise UserError(f"sampler {draw.sampler!r} takes no {field_.name}, got {value!r}; leave it out")

    @abstractmethod
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Draw n images as uint8 (n, C, H, W) with levels 0 .. shape.levels - 1.

        Image i depends on the weights, the draw and `noise` at global index noise.first + i alone.

        Raises:
            UserError: if this model has no such sampler, or cannot do the steps asked for.
        """


class Trains(ABC):
    """Learns by gradient steps in the standard trainer."""

    training_config: Training
    averaged: ClassVar[tuple[str, ...]] = ()  # submodules that EMA follows, and that sampling then uses
    selection: ClassVar[str | None] = None
    """The likelihood by which the best checkpoint is chosen on the validation split; None: the last one."""

    coupled: ClassVar[str] = ""
    """What makes its losses more than means over the images of a batch, so that processes cannot share one."""

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The update rules of one iteration, in order: a VAE has one, a GAN two, an AAE three."""

    def finish(self, images: Tensor, noise: Noise) -> None:  # noqa: B027 - most models have nothing left to do
        """Set buffers that follow from the chosen weights, from uint8 validation images (N, C, H, W)."""


class FitsExPost(Trains):
    """Draws from what is fitted to its own codes when training is over: a control beside generative models."""

    ex_post: ClassVar[str]  # what is fitted to what, for the record

    @abstractmethod
    def fit_ex_post(self, images: Tensor, noise: Noise) -> None:
        """Set buffers from uint8 train images (N, C, H, W), all of them, by the chosen weights; before `finish`."""


class Distils(Trains):
    """Learns from another model's checkpoint of the same data set and seed, which the harness trains before it."""

    @classmethod
    @abstractmethod
    def teacher(cls, config: Any) -> tuple[str, Mapping[str, Any]]:
        """The registry name of the model that a model of this config learns from, and what its config must say."""

    @abstractmethod
    def learn_from(self, teacher: GenerativeModel) -> None:
        """Take what is needed of a trained teacher; called once before training, also before it is resumed.

        Raises:
            UserError: if it is not the teacher that is expected.
        """


class Fits(ABC):
    """Learns in closed form or by a library's own fit; what it learns are buffers."""

    fits_development: ClassVar[bool] = False
    """Whether it is fitted to train and validation images together; a yardstick may, a model may not."""

    @abstractmethod
    def fit(self, images: Tensor, noise: Noise) -> None:
        """Fit to uint8 images (N, C, H, W)."""

    def fit_labelled(self, images: Tensor, labels: Tensor | None, noise: Noise) -> None:
        """What the trainer calls, with labels int64 (N,) where the data has them; most fits do not look at them."""
        self.fit(images, noise)


class Pretrained(Fits):
    """Learned elsewhere: built with its weights, and not trained here. Their hash is part of its config."""

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Learn nothing."""


class FitsLabelled(Fits):
    """A fit that looks at the images' classes too, where the data has them."""

    @abstractmethod
    def fit_labelled(self, images: Tensor, labels: Tensor | None, noise: Noise) -> None:
        """Fit to uint8 images (N, C, H, W) with labels int64 (N,)."""

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Fit to images whose classes are not known."""
        self.fit_labelled(images, None, noise)


class Replays(ABC):  # noqa: B024 - a marker: what it says is all there is to say
    """Draws copies of data, not samples of a model: a yardstick, whose speed means nothing."""


@dataclass(frozen=True)
class Model:
    """What a model file ends with; the registry finds it by the name MODEL."""

    title: str
    source: str  # authors, year and arXiv number or venue
    config: type[Any]  # a frozen dataclass whose fields all have defaults
    build: Callable[
        ..., GenerativeModel
    ]  # of (shape, config); of any task but unconditional (shape, config, Conditions)
    task: Task = "unconditional"  # a data set must offer it

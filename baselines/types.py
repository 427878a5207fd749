"""The torch-free part of the contract: what records, reports and matrices need to know of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from baselines.errors import UserError

Kind = Literal["exact", "upper_bound", "estimate"]
"""What a likelihood number is: the value itself, a bound on the NLL from above, or a stochastic estimate."""

Task = Literal["unconditional", "text_to_image", "translation", "domain_translation", "completion"]
"""What a model makes images from: noise alone (and labels that it takes by itself), a caption, an image of another
domain without pairs, an image and the attributes that it is to get, or a few patches of the image."""
Scalar = str | int | float | bool | None
Progress = Callable[[str, int, int], None]
"""progress(phase, done, total), in images or whatever the phase counts."""


class ImageShape(NamedTuple):
    """Shape of one image; pixels are integers 0 .. levels - 1 held in uint8."""

    channels: int
    height: int
    width: int
    levels: int = 256

    @property
    def dims(self) -> int:
        """Number of dimensions C * H * W, the divisor of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def chw(self) -> tuple[int, int, int]:
        """(channels, height, width), as tensors want it."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Conditions:
    """What a data set gives with its images: the sizes and names that a conditional model is built from."""

    words: tuple[str, ...] = ()  # of captions; word 0 fills them up behind their end
    caption_length: int = 0  # L, words of the longest caption
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by name, in order: its values' names
    source: ImageShape | None = None  # of the images that a translation starts from
    patches: tuple[int, int] | None = None  # (K, side) of the key patches of a completion

    @property
    def choices(self) -> tuple[int, ...]:
        """How many values each attribute has."""
        return tuple(len(values) for values in self.attributes.values())


@dataclass(frozen=True)
class Draw:
    """How to sample from a trained checkpoint; DDIM is a `Draw` of a DDPM checkpoint, not another model."""

    sampler: str = "native"
    steps: int | None = None  # S, requested reverse steps; None: the model's own number
    eta: float = 0.0  # DDIM's stochasticity: 0 deterministic, 1 the DDPM posterior
    spacing: str = "uniform"  # which S of the T timesteps: uniform | trailing | quadratic; of dpmpp_2m log_snr too
    variance: str | None = None  # the sampler's noise variance where it has a choice
    clip: bool = True  # clamp the predicted x_0 to the pixel range
    options: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps is not None and type(self.steps) is not int:
            raise UserError(f"draw.steps: expected a whole number, or none at all, got {self.steps!r}")
        if type(self.eta) not in (int, float):
            raise UserError(f"draw.eta: expected a number, got {self.eta!r}")

    def label(self) -> str:
        """Short name for tables, such as `ddim S=20 eta=0`."""
        parts = [self.sampler]
        if self.steps is not None:
            parts.append(f"S={self.steps}")
        if self.sampler == "ddim" and self.variance != "sigma_hat":  # which takes the mean of eta 1, and no eta
            parts.append(f"eta={self.eta:g}")
        if self.spacing != "uniform":
            parts.append(self.spacing)
        if self.variance is not None:
            parts.append(self.variance)
        if not self.clip:
            parts.append("no-clip")
        parts += [f"{name}={value}" for name, value in sorted(self.options.items())]
        return " ".join(parts)


@dataclass(frozen=True)
class Budget:
    """How long to train: in training images seen (exactly reproducible) or in seconds (not)."""

    images: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.images is None) == (self.seconds is None):
            raise UserError(f"budget: expected either images or seconds, got {self!r}")
        size = self.images if self.images is not None else self.seconds
        assert size is not None
        if not (math.isfinite(size) and size > 0):
            raise UserError(f"budget: expected a positive number, got {size}")

    @property
    def reproducible(self) -> bool:
        """Whether two runs of this budget do the same work."""
        return self.images is not None

    def label(self) -> str:
        """`400000 images` or `60 s`."""
        return f"{self.images} images" if self.images is not None else f"{self.seconds:g} s"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `400000`, `400k`, `2M` (images) or `60s`, `5m`, `2h` (seconds).

        Raises:
            UserError: if the text is none of these.
        """
        number, unit = text[:-1], text[-1:]
        try:
            if unit in ("s", "m", "h"):
                return cls(seconds=float(number) * {"s": 1, "m": 60, "h": 3600}[unit])
            if unit in ("k", "M"):
                return cls(images=round(float(number) * {"k": 1_000, "M": 1_000_000}[unit]))
            return cls(images=int(text.replace("_", "")))
        except (ValueError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"budget: expected images (400000, 400k, 2M) or seconds (60s, 5m, 2h), got {text!r}"
            ) from None

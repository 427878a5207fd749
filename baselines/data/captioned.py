"""Captioned coloured digits: real digits in one colour on another, each with a sentence that says what it shows.

Each enlarged digit is drawn in an ink on a ground of another colour, pixel = ground + intensity (ink - ground), and is
described in one of several wordings ("a red seven on blue", "seven in red , blue behind"). Which word is the ink's and
which the ground's hangs on their places and neighbours: the same words in another order mean another image. A caption
comes as the numbers of its words. Choices follow SHA-256 of the image's number, so no generator's version matters.

Twelve of the sixty pairs of digit and ink are held out: no training or validation image shows one, and about a third
of the test images do. Each digit is seen in four inks at least, and each ink on eight digits.
"""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor

from baselines.data import enlarged
from baselines.data.dataset import Dataset, Split
from baselines.given import Given, Requests
from baselines.types import Conditions, ImageShape

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (222, 36, 44),
    "green": (32, 160, 64),
    "blue": (44, 72, 222),
    "yellow": (238, 212, 48),
    "white": (240, 240, 240),
    "black": (16, 16, 16),
}
"""RGB values 0 .. 255; each image has its colours up to JITTER levels beside them, channel by channel."""
JITTER = 12
WORDINGS = (
    "a {ink} {digit} on {ground}",
    "on {ground} a {ink} {digit}",
    "{digit} in {ink} , {ground} behind",
    "{ground} behind a {digit} in {ink}",
    "{ink} {digit} , {ground} ground",
    "the digit {digit} in {ink} on {ground}",
)
_FILLERS = tuple(dict.fromkeys(word for text in WORDINGS for word in text.split() if "{" not in word))
WORDS = ("", *_FILLERS, *COLOURS, *DIGITS)
LENGTH = max(len(text.split()) for text in WORDINGS)
HELD_OUT = frozenset((j % 10, j % 6) for j in range(12))
"""Pairs (digit, ink), both as numbers."""
COPIES, FEW = 4, 5_000
"""Renderings of each image where the base has at most FEW training images; of more images one each."""
_CHUNK = 1_000


def of(base: Dataset) -> Dataset:
    """`digits-captioned` (16x16) or `mnist-captioned` (32x32): RGB, 256 levels, attributes digit, ink and ground."""
    large = enlarged.of(base)
    copies = COPIES if len(large.train) <= FEW else 1
    train, val, test = (_split(getattr(large, name), name, copies) for name in ("train", "val", "test"))
    _, height, width = large.shape.chw
    colours = tuple(COLOURS)
    return dataclasses.replace(
        large,
        name=f"{base.name}-captioned",
        shape=ImageShape(3, height, width, 256),
        train=train,
        val=val,
        test=test,
        note=f"digits of {base.name}, {height}x{width}, in an ink on a ground, captioned, {copies} of each; "
        f"test {len(test)}, val {len(val)}, train {len(train)}; {len(HELD_OUT)} of 60 pairs of digit and ink in the "
        f"test split alone; {large.note}",
        tasks=frozenset({"unconditional", "text_to_image"}),
        conditions=Conditions(
            words=WORDS,
            caption_length=LENGTH,
            attributes={"digit": DIGITS, "ink": colours, "ground": colours},
        ),
    )


def caption(digit: int, ink: int, ground: int, wording: int) -> list[int]:
    """The words' numbers of one caption, LENGTH of them, 0 behind its end."""
    colours = tuple(COLOURS)
    text = WORDINGS[wording].format(digit=DIGITS[digit], ink=colours[ink], ground=colours[ground])
    numbers = [WORDS.index(word) for word in text.split()]
    return numbers + [0] * (LENGTH - len(numbers))


def rendered(intensities: Tensor, inks: Tensor, grounds: Tensor) -> Tensor:
    """Digits uint8 (N, 1, H, W) in inks on grounds, int (N, 3) each of 0 .. 255: uint8 (N, 3, H, W), rounded."""
    ink, ground = inks.int()[:, :, None, None], grounds.int()[:, :, None, None]
    parts = []
    for first in range(0, len(intensities), _CHUNK):
        rows = slice(first, first + _CHUNK)
        share = intensities[rows].int()
        parts.append(((ground[rows] * (255 - share) + ink[rows] * share + 127) // 255).to(torch.uint8))
    return torch.cat(parts)


def _split(split: Split, name: str, copies: int) -> Split:
    """All images, `copies` times over; their attributes, and as requests their captions."""
    assert split.labels is not None
    labels = split.labels.tolist()
    chosen = [_chosen(name, number, copy, digit) for copy in range(copies) for number, digit in enumerate(labels)]
    attributes = torch.tensor([row.attributes for row in chosen])
    images = rendered(
        split.images.repeat(copies, 1, 1, 1),
        torch.tensor([row.ink for row in chosen]),
        torch.tensor([row.ground for row in chosen]),
    )
    tokens = torch.tensor([caption(*row.attributes, row.wording) for row in chosen])
    unseen = torch.tensor([row.attributes[:2] in HELD_OUT for row in chosen])
    requests = Requests(Given(tokens=tokens), attributes=attributes, unseen=unseen)
    return Split(images, attributes[:, 0].clone(), attributes=attributes, requests=requests)


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """What one rendering shows."""

    attributes: tuple[int, int, int]  # digit, ink, ground
    wording: int
    ink: tuple[int, ...]  # RGB
    ground: tuple[int, ...]


def _chosen(split: str, number: int, copy: int, digit: int) -> _Chosen:
    """The choices for one rendering; seen pairs of one image are of different inks."""
    kept = [ink for ink in range(len(COLOURS)) if (digit, ink) not in HELD_OUT]
    new = [ink for ink in range(len(COLOURS)) if (digit, ink) in HELD_OUT]
    own = _digest(split, number, copy)
    inks = new if split == "test" and own[14] % 3 == 0 else kept
    ink = inks[(_number(_digest(split, number)[:4]) + copy) % len(inks)]
    ground = [colour for colour in range(len(COLOURS)) if colour != ink][_number(own[:4]) % (len(COLOURS) - 1)]
    near = [byte % (2 * JITTER + 1) - JITTER for byte in own[8:14]]
    values = tuple(COLOURS.values())
    return _Chosen(
        (digit, ink, ground),
        _number(own[4:8]) % len(WORDINGS),
        tuple(min(max(v + d, 0), 255) for v, d in zip(values[ink], near[:3], strict=True)),
        tuple(min(max(v + d, 0), 255) for v, d in zip(values[ground], near[3:], strict=True)),
    )


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("captioned {}".format(" ".join(map(str, parts))).encode()).digest()


def _number(part: bytes) -> int:
    return int.from_bytes(part, "big")

"""Captioned digits: what a caption says is what the image shows, and held-out pairs are in the test split alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.data import captioned, catalogue, enlarged
from baselines.data.captioned import COLOURS, DIGITS, HELD_OUT, WORDINGS, WORDS, caption, rendered
from baselines.data.dataset import Dataset, Split
from baselines.given import Requests
from baselines.types import ImageShape

SPLITS = ("train", "val", "test")


@cache
def data() -> Dataset:
    return catalogue.load("digits-captioned")


def parts(name: str) -> tuple[Split, Requests, Tensor, Tensor]:
    """A split, its requests, their attributes and their tokens."""
    split: Split = getattr(data(), name)
    requests = split.requests
    assert requests is not None
    assert requests.attributes is not None
    assert requests.given.tokens is not None
    return split, requests, requests.attributes, requests.given.tokens


def read(tokens: list[int]) -> tuple[str, str, str]:
    """Digit, ink and ground by grammar: the ground follows `on` or stands beside `behind` or `ground`."""
    words = [WORDS[token] for token in tokens if token]
    digit = next(word for word in words if word in DIGITS)
    places = [i for i, word in enumerate(words) if word in COLOURS]
    near = {"on": 1, "behind": -1, "ground": -1}
    marks = [i + near[word] for i, word in enumerate(words) if word in near]
    ground = next(i for i in marks if i in places)
    (ink,) = (i for i in places if i != ground)
    return digit, words[ink], words[ground]


def test_it_offers_captions_with_the_sizes_that_it_tells() -> None:
    d = data()
    assert d.shape == ImageShape(3, 16, 16, 256)
    assert d.tasks == {"unconditional", "text_to_image"}
    assert d.conditions.choices == (10, 6, 6)
    assert d.conditions.words[0] == ""
    assert len(set(d.conditions.words)) == len(d.conditions.words)
    for name in SPLITS:
        split, _, attributes, tokens = parts(name)
        assert split.images.shape == (len(split), 3, 16, 16)
        assert split.images.dtype == torch.uint8
        assert tokens.shape == (len(split), d.conditions.caption_length)
        assert int(tokens.max()) < len(d.conditions.words)
        assert split.labels is not None
        assert torch.equal(split.labels, attributes[:, 0])
        assert split.attributes is not None
        assert torch.equal(split.attributes, attributes)


@pytest.mark.parametrize("name", SPLITS)
def test_captions_say_what_the_attributes_are(name: str) -> None:
    _, _, attributes, tokens = parts(name)
    colours = tuple(COLOURS)
    for (digit, ink, ground), words in zip(attributes.tolist(), tokens.tolist(), strict=True):
        assert read(words) == (DIGITS[digit], colours[ink], colours[ground])
        assert ink != ground
        length = sum(token > 0 for token in words)
        assert all(words[:length]), "padding stands behind the end alone"


@pytest.mark.parametrize("name", SPLITS)
def test_images_show_what_the_attributes_say(name: str) -> None:
    """Background and full ink are the named colours but for the jitter, and the digit is the enlarged real one."""
    split, _, attributes, _ = parts(name)
    large: Split = getattr(enlarged.of(catalogue.load("digits")), name)
    copies = len(split) // len(large)
    assert len(split) == copies * len(large)
    intensities = large.images.repeat(copies, 1, 1, 1)[:, 0].double() / 255
    values = torch.tensor(list(COLOURS.values()), dtype=torch.float64)
    assert large.labels is not None
    assert torch.equal(attributes[:, 0], large.labels.repeat(copies))
    for i in range(0, len(split), 7):
        share, pixels = intensities[i].flatten(), split.images[i].double().flatten(1).T
        design = torch.stack([share, 1 - share], 1)
        fitted = torch.linalg.lstsq(design, pixels).solution  # ink and ground, by least squares
        assert float((design @ fitted - pixels).abs().max()) < 1.5, "one blend of two colours, rounded"
        wanted = values[attributes[i, 1:]]
        assert float((fitted - wanted).abs().max()) <= captioned.JITTER + 1.5


def test_held_out_pairs_are_in_no_image_that_is_learned_from_and_a_third_of_the_test_requests() -> None:
    for name in SPLITS:
        _, requests, attributes, _ = parts(name)
        pairs = torch.tensor([(digit, ink) in HELD_OUT for digit, ink, _ in attributes.tolist()])
        assert requests.unseen is not None
        assert torch.equal(requests.unseen, pairs)
        share = float(pairs.double().mean())
        assert share == 0 if name != "test" else abs(share - 1 / 3) < 0.04
    _, _, attributes, _ = parts("test")
    asked = {(digit, ink) for digit, ink, _ in attributes.tolist()}
    assert asked == {(digit, ink) for digit in range(10) for ink in range(6)}


def test_every_seen_pair_is_learned_from_and_no_digit_or_ink_is_held_out_whole() -> None:
    _, _, attributes, _ = parts("train")
    seen = Counter((digit, ink) for digit, ink, _ in attributes.tolist())
    assert set(seen) == {(digit, ink) for digit in range(10) for ink in range(6)} - HELD_OUT
    assert min(seen.values()) > 40
    assert len(HELD_OUT) == 12
    assert min(Counter(digit for digit, _ in seen).values()) == 4
    assert set(Counter(ink for _, ink in seen).values()) == {8}


def test_combinations_wordings_and_the_places_of_colours_are_mixed() -> None:
    _, _, attributes, tokens = parts("train")
    assert len(torch.unique(attributes, dim=0)) == 48 * 5, "every ground with every seen pair"
    table = np.zeros((6, 6))
    for _, ink, ground in attributes.tolist():
        table[ink, ground] += 1
    off = table[~np.eye(6, dtype=bool)]
    assert off.min() > 0.7 * off.mean()
    orders = {tuple(sorted(row)) for row in tokens.tolist()}
    assert len(orders) < len({tuple(row) for row in tokens.tolist()}), "some captions differ in their order alone"
    first_colour = [next(w for w in (WORDS[t] for t in row) if w in COLOURS) for row in tokens.tolist()]
    inks = [tuple(COLOURS)[ink] for ink in attributes[:, 1].tolist()]
    share = np.mean([a == b for a, b in zip(first_colour, inks, strict=True)])
    assert 0.5 < share < 0.85, "the first colour word is not always the ink"


def test_the_copies_of_a_training_image_have_different_inks() -> None:
    _, _, attributes, _ = parts("train")
    inks = attributes[:, 1].view(captioned.COPIES, -1).T
    assert all(len(set(row)) == captioned.COPIES for row in inks.tolist())


def test_it_is_made_again_the_same_and_hangs_on_no_generator() -> None:
    torch.manual_seed(1)
    again = captioned.of(catalogue.load("digits"))
    assert again.fingerprint() == data().fingerprint()
    # SHA-256 by hand: the first training image's first wording and ground
    import hashlib

    _, _, attributes, tokens = parts("train")
    own = hashlib.sha256(b"captioned train 0 0").digest()
    digit, ink, ground = attributes[0].tolist()
    others = [colour for colour in range(6) if colour != ink]
    assert ground == others[int.from_bytes(own[:4], "big") % 5]
    assert tokens[0].tolist() == caption(digit, ink, ground, int.from_bytes(own[4:8], "big") % len(WORDINGS))


def test_a_blend_is_exact_at_both_ends_and_rounds_between() -> None:
    share = torch.tensor([0, 255, 128], dtype=torch.uint8).view(3, 1, 1, 1)
    inks, grounds = torch.tensor([[255, 0, 7]] * 3), torch.tensor([[0, 255, 8]] * 3)
    found = rendered(share, inks, grounds).view(3, 3)
    assert found[0].tolist() == [0, 255, 8]
    assert found[1].tolist() == [255, 0, 7]
    exact = [128, 255 - 128, 8 - 128 / 255]
    assert found[2].tolist() == [round(value) for value in exact]


def test_large_data_is_rendered_once() -> None:
    base = catalogue.load("digits")
    many = base.train.images.repeat(5, 1, 1, 1), base.train.labels.repeat(5)  # type: ignore[union-attr]
    made = captioned.of(dataclasses.replace(base, train=Split(*many)))
    assert len(made.train) == 5 * len(base.train) > captioned.FEW
    assert len(made.test) == len(base.test)

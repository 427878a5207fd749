"""The premise of the races of autoregressive samplers: the naive loop and ours draw the same images, bit for bit."""

from __future__ import annotations

import pytest

from baselines.types import ImageShape
from bench.peers import autoregressive


@pytest.mark.parametrize("part", [25, 7])
@pytest.mark.parametrize("model", autoregressive.TITLES)
def test_the_naive_loop_draws_our_images(model: str, part: int) -> None:
    contest = autoregressive.contest("tiny", model, 2, ImageShape(1, 5, 5, 8), part)
    (naive,) = contest.peers
    ours, theirs = contest.ours.work(), naive.work()
    assert len(ours.unique()) > 2, "premise: images that are no constant"
    assert contest.agree[naive.name](ours, theirs).holds
    assert naive.share == part / 25


def test_a_pixel_off_is_no_agreement() -> None:
    contest = autoregressive.contest("tiny", "pixelcnn", 1, ImageShape(1, 5, 5, 8), 25)
    (naive,) = contest.peers
    ours = contest.ours.work()
    other = ours.clone()
    other[0, 0, 2, 2] += 1
    assert not contest.agree[naive.name](ours, other).holds

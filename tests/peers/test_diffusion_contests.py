"""The premises of the races of diffusion samplers: one first noise, one network, as many calls, the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="needs diffusers: pip install 'trilemma-bench[diffusers]'")

from baselines.contract import Noise
from bench.measure.workload import capture_calls
from bench.peers import diffusion
from bench.peers.contest import Contest


def agreements(contest: Contest) -> list[Any]:
    ours = contest.ours.work()
    assert ours.float().std() > 1, "premise: images that are no constant"
    return [contest.agree[peer.name](ours, peer.work()) for peer in contest.peers]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_images_are_the_pipelines_where_the_steps_divide_the_chain(tmp_path: Path, sampler: str) -> None:
    found = agreements(diffusion.beside_pipelines(tmp_path, sampler, 4, 2))
    assert len(found) == 2
    assert all(agreement.holds and not agreement.expected for agreement in found), found


def test_where_they_do_not_the_reason_is_told(tmp_path: Path) -> None:
    found = agreements(diffusion.beside_pipelines(tmp_path, "ddim", 6, 1))
    assert all(agreement.expected and not agreement.holds for agreement in found), found


def test_our_network_under_their_scheduler_draws_our_images(tmp_path: Path) -> None:
    (agreement,) = agreements(diffusion.beside_schedulers(tmp_path, 4, 2))
    assert agreement.holds, agreement


def test_the_first_noise_is_ours() -> None:
    ours = Noise(0).normal("x_T", 2, (1, 28, 28))
    theirs = torch.cat([torch.randn(1, 1, 28, 28, generator=generator) for generator in diffusion.generators(2)])
    assert torch.equal(ours, theirs)
    assert torch.equal(diffusion.as_a_pipeline_draws(2).normal("x_T", 2, (1, 28, 28)), ours)


def test_both_call_the_network_once_a_step(tmp_path: Path) -> None:
    ours = diffusion.adapted(diffusion.random_pipeline(tmp_path))
    with capture_calls(ours) as calls:
        from baselines.types import Draw

        ours.sample(1, Draw("ddim", 6), Noise(0))
    import diffusers

    scheduler = diffusers.DDIMScheduler(diffusion.T)
    scheduler.set_timesteps(6)
    assert calls.count == len(scheduler.timesteps) == 6

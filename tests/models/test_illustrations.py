"""What diffusion models and GANs show of themselves: against the samplers, closed forms and scipy."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from torch import Tensor

from baselines import registry, trainer
from baselines.config import build_config
from baselines.contract import Draw, Illustrates, Noise, Strip
from baselines.data.likelihood import from_signed, to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import GaussianDiffusion
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.illustrations import (
    INVERSION_STEPS,
    ROWS,
    STEPS,
    Recorder,
    illustrate,
    moments,
    sample,
)
from baselines.diffusion.inversion import ddim_decode, ddim_encode
from baselines.diffusion.process import Process, make_process, subsequence
from baselines.gans.dcgan import Dcgan
from baselines.nets.interpolation import PAIRS, PLACES, slerp
from baselines.types import ImageShape

PROCESS = make_process("linear", 200, 1e-4, 0.02)
LEVELS = 17
CHW = (1, 4, 4)
NOISE = Noise(3, dtype=torch.float64)


def exact(process: Process, variance: float = 0.3) -> Denoiser:
    """The exact denoiser of independent N(0, variance) pixels."""
    data = GaussianData(torch.zeros(1, dtype=torch.float64), torch.full((1,), variance, dtype=torch.float64))
    return Denoiser(lambda x, t: data.eps(x, process.transition(t, -1)), process)


def real(n: int = 8) -> Tensor:
    return torch.randint(0, LEVELS, (n, *CHW), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def strips(denoiser: Denoiser) -> dict[str, Strip]:
    made = illustrate(denoiser, real(), LEVELS, NOISE)
    names = ("forward", "reverse", "progressive", "eta 0", "eta 1", "interpolation", "inversion")
    return dict(zip(names, made, strict=True))


@pytest.fixture(scope="module")
def made() -> dict[str, Strip]:
    return strips(exact(PROCESS))


@pytest.mark.parametrize("shape", [(7,), (2, 3, 3)])
def test_slerp_is_scipys_on_the_unit_sphere_and_keeps_each_images_own_angle(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(3, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = (x / x.flatten(1).norm(dim=1).view(-1, *[1] * len(shape)) for x in (a, b))
    for weight in (0.0, 0.3, 0.5, 1.0):
        ours = slerp(a, b, weight).flatten(1)
        for i in range(3):
            theirs = geometric_slerp(a[i].flatten().numpy(), b[i].flatten().numpy(), weight)
            np.testing.assert_allclose(ours[i].numpy(), theirs, atol=1e-12)


def test_slerp_of_parallel_latents_is_linear_and_finite() -> None:
    a = torch.ones(2, 5, dtype=torch.float64)
    torch.testing.assert_close(slerp(a, 3 * a, 0.25), 1.5 * a)
    assert bool(slerp(a, -a, 0.5).isfinite().all())


def test_the_forward_strip_is_q_of_x_t_given_x_0(made: dict[str, Strip]) -> None:
    strip = made["forward"]
    times = moments(PROCESS)
    assert (times[0], times[-1], len(times)) == (0, 199, 10)
    assert strip.columns == ("image", *(f"t={t}" for t in times))
    assert torch.equal(strip.images[:, 0], real()[:ROWS])
    abar = (1 - PROCESS.betas).cumprod(0)
    eps = NOISE.normal("forward", ROWS, CHW)
    for column, t in enumerate(times, start=1):
        x_t = abar[t].sqrt() * to_signed(real()[:ROWS], LEVELS).double() + (1 - abar[t]).sqrt() * eps
        assert torch.equal(strip.images[:, column], from_signed(x_t, LEVELS))


def test_recording_changes_no_sample_and_notes_what_the_sampler_saw() -> None:
    x_T = NOISE.normal("x_T", 3, CHW)
    inner = exact(PROCESS)
    seen: dict[float, Tensor] = {}

    def watched(x: Tensor, t: float) -> Tensor:
        seen[t] = x.clone()
        return inner.network(x, t)

    recorder = Recorder(replace(inner, network=watched), [0, 50, 199])
    with_recorder = sample(recorder.denoiser, x_T, 200, 1.0, NOISE)
    assert torch.equal(with_recorder, sample(inner, x_T, 200, 1.0, NOISE))
    assert list(recorder.x_t) == [199, 50, 0]
    assert torch.equal(recorder.x_t[199], x_T)
    for t, x_t in recorder.x_t.items():
        assert torch.equal(x_t, seen[t])
        torch.testing.assert_close(recorder.x_0[t], PROCESS.predict_x0(x_t, inner.network(x_t, t), t))


def test_a_network_with_a_learned_variance_is_recorded_by_its_mean() -> None:
    plain = exact(PROCESS)
    both = replace(
        plain, network=lambda x, t: torch.cat([plain.network(x, t), torch.zeros_like(x)], 1), learned_variance=True
    )
    for ours, theirs in zip(strips(both).values(), strips(plain).values(), strict=True):
        assert torch.equal(ours.images, theirs.images)


def test_both_processes_end_in_the_samples_of_ancestral_sampling(made: dict[str, Strip]) -> None:
    from baselines.diffusion.sampling import SAMPLERS

    steps = NOISE.normals("steps", ROWS, CHW, PROCESS.timesteps)
    x_0 = SAMPLERS["ddpm"].run(NOISE.normal("x_T", ROWS, CHW), exact(PROCESS), Draw("ddpm"), steps)
    samples = from_signed(x_0, LEVELS)
    for name in ("reverse", "progressive", "eta 1"):
        assert torch.equal(made[name].images[:, -1], samples), name
    assert made["reverse"].columns == made["progressive"].columns
    assert torch.equal(made["reverse"].images[:, 0], from_signed(NOISE.normal("x_T", ROWS, CHW), LEVELS))


def test_without_noise_the_columns_agree_and_the_caption_says_by_how_much(made: dict[str, Strip]) -> None:
    distances = {}
    for eta in (0, 1):
        strip = made[f"eta {eta}"]
        assert strip.columns == (*(f"S={s}" for s in STEPS), "S=200")
        shown = strip.images.double() / (LEVELS - 1)
        by_hand = [float(((shown[:, i] - shown[:, -1]) ** 2).mean().sqrt()) for i in range(len(STEPS))]
        told = [float(v) for v in re.findall(r"([\d.]+) \(S=", strip.caption)]
        assert told == pytest.approx(by_hand, abs=0.005)
        between = float(np.sqrt(np.mean([(shown[i, -1] - shown[i - 1, -1]).square().mean() for i in range(ROWS)])))
        assert f"between rows {between:.2f}." in strip.caption
        distances[eta] = by_hand[2]
    assert distances[0] < 0.3 * distances[1]


def test_interpolation_goes_from_one_latents_image_to_the_others(made: dict[str, Strip]) -> None:
    strip = made["interpolation"]
    assert strip.images.shape == (PAIRS, PLACES, *CHW)
    ends = NOISE.normal("interpolation", 2 * PAIRS, CHW)
    images = from_signed(sample(exact(PROCESS), ends, 50, 0.0, NOISE), LEVELS)
    assert torch.equal(strip.images[:, 0], images[:PAIRS])
    assert torch.equal(strip.images[:, -1], images[PAIRS:])
    assert (strip.columns[0], strip.columns[4], strip.columns[8]) == ("0", "1/2", "1")


def test_encoding_with_all_steps_nears_the_exact_flow_of_gaussian_data() -> None:
    """The probability flow of N(0, lambda) takes x_0 to x_0 sqrt(C_t / lambda)."""
    process = make_process("linear", 1000, 1e-4, 0.02)
    x_0 = torch.linspace(-1, 1, 5, dtype=torch.float64).view(5, 1, 1, 1)
    for variance in (0.1, 0.5, 2.0):
        total = process.transition(999, -1).abar_t * variance + process.transition(999, -1).noise_t
        latent = ddim_encode(x_0, exact(process, variance), 1000)
        torch.testing.assert_close(latent, x_0 * math.sqrt(total / variance), rtol=0.02, atol=1e-12)


def test_more_steps_reconstruct_better_and_a_silent_network_exactly(made: dict[str, Strip]) -> None:
    x_0 = to_signed(real(), LEVELS).double()
    silent = Denoiser(lambda x, t: torch.zeros_like(x), PROCESS)
    torch.testing.assert_close(ddim_decode(ddim_encode(x_0, silent, 20), silent, 20), x_0)
    errors = []
    for steps in INVERSION_STEPS:
        back = ddim_decode(ddim_encode(x_0, exact(PROCESS), steps), exact(PROCESS), steps)
        errors.append(float(((back - x_0) / 2).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]
    told = [float(v) for v in re.findall(r"([\d.e-]+) \(S=", made["inversion"].caption)]
    assert told == pytest.approx(errors, rel=0.06)


def test_encode_and_decode_ask_the_network_once_a_step() -> None:
    called: list[float] = []

    def network(x: Tensor, t: float) -> Tensor:
        called.append(t)
        return torch.zeros_like(x)

    x = torch.zeros(1, *CHW, dtype=torch.float64)
    ddim_encode(x, Denoiser(network, PROCESS), 7)
    chosen = subsequence(7, 200, "uniform")
    assert called == [0, *chosen[:-1]]
    called.clear()
    ddim_decode(x, Denoiser(network, PROCESS), 7)
    assert called == chosen[::-1]


@pytest.mark.parametrize("timesteps", [2, 7, 10])
def test_short_chains_show_no_more_steps_than_they_have(timesteps: int) -> None:
    made = strips(exact(make_process("linear", timesteps, 1e-4, 0.02)))
    for name in ("eta 0", "eta 1", "inversion"):
        steps = [int(label[2:]) for label in made[name].columns if label.startswith("S=")]
        assert steps
        assert max(steps) <= timesteps
        assert len(set(steps)) == len(steps)
    assert len(made["forward"].columns) <= timesteps + 1


def test_a_strip_whose_words_and_images_do_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images \(2, 1, 'C', 'H', 'W'\)"):
        Strip("a", "b", ("", ""), ("x",), torch.zeros(2, 2, 1, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(("prediction", "zero_terminal"), [("eps", False), ("v", True), ("x0", True), ("mean", False)])
def test_a_ddpm_shows_itself_the_same_way_each_time_whatever_further_images_it_is_given(
    prediction: str, zero_terminal: bool
) -> None:
    model = registry.load("ddpm").model
    config = build_config(
        model.config, {"timesteps": 12, "prediction": prediction, "zero_terminal": zero_terminal}, "ddpm"
    )
    ddpm = trainer.build(model, ImageShape(*CHW, LEVELS), config, 0)
    assert isinstance(ddpm, GaussianDiffusion)
    first, again, other = (
        ddpm.pictures(real(), Noise(1)),
        ddpm.pictures(real(7), Noise(1)),
        ddpm.pictures(real(), Noise(2)),
    )
    for strip, same in zip(first, again, strict=True):
        assert torch.equal(strip.images, same.images)
    for i in (0, 1):  # an untrained network answers 0, so that the others need not differ
        assert not torch.equal(first[i].images, other[i].images)


def test_dcgan_walks_between_images_of_its_latents() -> None:
    model = registry.load("dcgan").model
    gan = trainer.build(model, ImageShape(1, 8, 8, LEVELS), build_config(model.config, {}, "dcgan"), 0).eval()
    assert isinstance(gan, Dcgan)
    assert isinstance(gan, Illustrates)
    strip, _ = gan.pictures(real(), Noise(4))
    z = Noise(4).normal("interpolation", 2 * PAIRS, (gan.config.latent,))
    with torch.no_grad():
        images = from_signed(gan.generator(z), LEVELS)
    assert int((strip.images[:, 0].int() - images[:PAIRS].int()).abs().max()) <= 1
    assert int((strip.images[:, -1].int() - images[PAIRS:].int()).abs().max()) <= 1

"""DDIM run upwards: against its closed form on Gaussian data, and there and back again."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.inversion import ddim_decode, ddim_encode
from baselines.diffusion.process import make_process, subsequence
from baselines.errors import UserError

PROCESS = make_process("linear", 1000, 1e-4, 0.02)
DATA = GaussianData(
    torch.tensor([0.0, 0.7, -0.4, 0.1], dtype=torch.float64), torch.tensor([1.0, 0.3, 0.02, 2.5], dtype=torch.float64)
)


def exact() -> Denoiser:
    return Denoiser(lambda x_t, t: DATA.eps(x_t, PROCESS.transition(t, -1)), PROCESS)


def images(n: int = 50) -> Tensor:
    standard = torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return DATA.mean + DATA.variance.sqrt() * standard


@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic"])
@pytest.mark.parametrize("steps", [1, 5, 40, 1000])
def test_encoding_is_a_product_of_cosines_on_gaussian_data(steps: int, spacing: str) -> None:
    """A step from s up to t multiplies standardised values by cos(phi_t - phi_s), phi = atan sqrt((1-a) / (a lambda)).

    The step out of the data is taken apart: x + sqrt(1-a)/sqrt(a) eps(x), with eps asked of the data at level a.
    """
    times = subsequence(steps, 1000, spacing)  # type: ignore[arg-type]
    found = ddim_encode(images(), exact(), steps, spacing)  # type: ignore[arg-type]
    abar = PROCESS.abar
    a = abar[times[0]]
    eps = (1 - a).sqrt() * (images() - a.sqrt() * DATA.mean) / (a * DATA.variance + 1 - a)
    x = a.sqrt() * images() + (1 - a).sqrt() * eps
    for s, t in itertools.pairwise(times):
        before, after = (torch.atan(((1 - abar[i]) / (abar[i] * DATA.variance)).sqrt()) for i in (s, t))
        spread_s, spread_t = ((abar[i] * DATA.variance + 1 - abar[i]).sqrt() for i in (s, t))
        centred = (x - abar[s].sqrt() * DATA.mean) / spread_s
        x = abar[t].sqrt() * DATA.mean + centred * spread_t * torch.cos(after - before)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_there_and_back_comes_nearer_with_every_doubling_of_the_steps() -> None:
    x, errors = images(), []
    for steps in (10, 20, 40, 80, 160, 320, 640):
        back = ddim_decode(ddim_encode(x, exact(), steps), exact(), steps)
        errors.append(float((back - x).square().mean().sqrt()))
    assert all(after < 0.65 * before for before, after in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.01


def test_the_latent_of_an_image_is_the_one_that_the_ode_leads_to() -> None:
    x = images()
    end = PROCESS.log_abar(999)
    spread = (math.exp(end) * DATA.variance - math.expm1(end)).sqrt()
    truth = math.exp(end / 2) * DATA.mean + (x - DATA.mean) / DATA.variance.sqrt() * spread
    coarse, fine = (float((ddim_encode(x, exact(), steps, "trailing") - truth).abs().max()) for steps in (100, 1000))
    assert fine < 0.4 * coarse
    assert fine < 0.05


def test_an_image_is_encoded_alike_in_any_batch_and_the_network_is_called_once_a_step() -> None:
    called: list[float] = []

    def network(x: Tensor, t: float) -> Tensor:
        called.append(t)
        return torch.sin(2 * x + 0.01 * t)

    denoiser = Denoiser(network, PROCESS)
    whole = ddim_encode(images(), denoiser, 7)
    assert called == [0, *subsequence(7, 1000, "uniform")[:-1]]
    torch.testing.assert_close(ddim_encode(images()[3:4], denoiser, 7), whole[3:4], rtol=1e-12, atol=1e-12)


def test_steps_that_there_are_not_are_refused() -> None:
    for call in (ddim_encode, ddim_decode):
        with pytest.raises(UserError, match="steps: expected 1 to 1000"):
            call(images(), exact(), 1001)
        with pytest.raises(UserError, match="spacing"):
            call(images(), exact(), 10, "cubic")  # type: ignore[arg-type]

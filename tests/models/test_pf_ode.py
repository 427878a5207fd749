"""log p by the probability-flow ODE: closed form for Gaussian data, another solver, stated errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal, sem
from torch import Tensor

import bench
from baselines import registry, trainer
from baselines.config import build_config
from baselines.data import catalogue
from baselines.data.likelihood import (
    bits_per_dim,
    dequantise,
    dequantised_nats,
    image_nats,
    kinds,
    unit_to_signed,
)
from baselines.diffusion import gaussian_diffusion
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import GaussianDiffusion
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.grids import level
from baselines.diffusion.oracle_pixels import OraclePixels
from baselines.diffusion.pf_ode import first_time, log_density, random_signs
from baselines.diffusion.process import Process, make_process
from baselines.errors import UserError
from baselines.noise import Noise
from baselines.types import ImageShape
from bench import matrix as matrices
from bench.metrics.base import Subject
from bench.metrics.likelihood import BitsPerDim
from bench.prepare import Options, prepare

CHAIN = make_process("linear", 100, 1e-4, 0.02)
CHW = (1, 2, 3)
DIMS = 6
DATA = GaussianData(
    torch.tensor([0.3, -0.5, 0.0, 0.1, 0.7, -0.2], dtype=torch.float64),
    torch.tensor([0.04, 0.6, 1.0, 0.01, 0.2, 2.5], dtype=torch.float64),
)
ROTATION = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]


def exact(process: Process, rotation: Tensor) -> Denoiser:
    """E[eps | x_t] of the Gaussian whose principal axes are the rotation's columns."""

    def network(x_t: Tensor, t: float) -> Tensor:
        flat = x_t.flatten(1) @ rotation
        signal, noise = process.signal(t), process.sigma(t)
        eps = noise * (flat - signal * DATA.mean) / (signal**2 * DATA.variance + noise**2)
        return (eps @ rotation.T).view_as(x_t)

    return Denoiser(network, process)


def data(n: int, rotation: Tensor) -> Tensor:
    z = Noise(2, dtype=torch.float64).normal("x", n, (DIMS,))
    return ((DATA.mean + DATA.variance.sqrt() * z) @ rotation.T).view(n, *CHW)


def basis(n: int) -> Tensor:
    """Probes whose mean of v v^T is the identity: with these the trace is exact."""
    eye = math.sqrt(DIMS) * torch.eye(DIMS, dtype=torch.float64)
    return eye.view(1, DIMS, *CHW).expand(n, DIMS, *CHW)


def closed_form(y: Tensor, process: Process, first: float, rotation: Tensor) -> Tensor:
    """sum log N(x_T; 0, 1) + 1/2 ln(C_T / (abar_T (lambda + sigma^2))): the flow of a Gaussian is linear."""
    a_first, a_last = (math.exp(process.log_abar(t)) for t in (first, process.timesteps - 1))
    sigma2_first, sigma2_last = 1 / a_first - 1, 1 / a_last - 1
    stretch = (DATA.variance + sigma2_last) / (DATA.variance + sigma2_first)
    end = DATA.mean + (y.flatten(1) @ rotation - DATA.mean) * stretch.sqrt()
    x_T = math.sqrt(a_last) * end
    return (-0.5 * x_T**2 - 0.5 * math.log(2 * math.pi) + 0.5 * (a_last * stretch).log()).sum(1)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("rotated", [False, True])
def test_of_gaussian_data_it_is_the_closed_form(schedule: str, rotated: bool) -> None:
    process = make_process(schedule, 100, 1e-4, 0.02)  # type: ignore[arg-type]
    rotation = ROTATION if rotated else torch.eye(DIMS, dtype=torch.float64)
    y = data(5, rotation)
    found = log_density(exact(process, rotation), y, basis(5), 400).mean(1)
    torch.testing.assert_close(found, closed_form(y, process, 0.0, rotation), rtol=1e-6, atol=1e-6)


def test_begun_at_the_data_it_is_the_datas_own_density_but_for_the_prior() -> None:
    """The closed form of the whole chain, and the Gaussian's density, which it nears as the chain ends in noise."""
    process = make_process("linear", 1000, 1e-4, 0.02)
    y, first = data(5, ROTATION), -1 + 1e-7
    found = log_density(exact(process, ROTATION), y, basis(5), 400, first).mean(1)
    torch.testing.assert_close(found, closed_form(y, process, first, ROTATION), rtol=1e-6, atol=1e-5)
    mean = (ROTATION @ DATA.mean).numpy()
    covariance = (ROTATION @ torch.diag(DATA.variance) @ ROTATION.T).numpy()
    density = multivariate_normal(mean, covariance).logpdf(y.flatten(1).numpy())
    np.testing.assert_allclose(found.numpy(), density, atol=0.03)


def test_the_trace_averages_out_and_its_standard_error_covers() -> None:
    """A rotated covariance gives the trace variance; images' errors, in units of what is stated, are standard."""
    n, probes = 400, 8
    y = data(n, ROTATION)
    signs = random_signs(n, CHW, probes, Noise(3, dtype=torch.float64))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    each = log_density(exact(CHAIN, ROTATION), y, signs, 60)
    truth = log_density(exact(CHAIN, ROTATION), y, basis(n), 60).mean(1)
    error = each.std(1) / math.sqrt(probes)
    assert float(error.min()) > 0.01, "the premise: the estimator has variance"
    off = each.mean(1) - truth
    of_mean = float(error.square().sum().sqrt()) / n
    assert abs(float(off.mean())) < 4 * of_mean
    assert float((off / error).abs().lt(2.36).double().mean()) == pytest.approx(0.95, abs=0.04), "Student's t of 7"
    aligned = log_density(exact(CHAIN, torch.eye(DIMS, dtype=torch.float64)), y[:3], signs[:3], 60)
    (
        torch.testing.assert_close(aligned, aligned[:, :1].expand_as(aligned)),
        "of a diagonal Jacobian every probe is exact",
    )


def tiny_net(chw: tuple[int, int, int]) -> torch.nn.Module:
    dims = math.prod(chw)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(dims + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, dims)).double()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net


@pytest.mark.slow
def test_it_agrees_with_scipys_solver_in_the_other_variables_with_the_exact_trace() -> None:
    """Song et al., eqs. 13 and 39 as written, dx/dt = -beta(t) / 2 (x + score), of a net whose Jacobian is full."""
    net = tiny_net(CHW)
    process = make_process("linear", 12, 1e-4, 0.02)

    def network(x_t: Tensor, t: float) -> Tensor:
        time = torch.full((len(x_t), 1), t / 10, dtype=x_t.dtype)
        out: Tensor = net(torch.cat([x_t.flatten(1), time], 1)).view_as(x_t)
        return out + 0.5 * x_t

    y = data(1, ROTATION)

    def field(t: float, state: np.ndarray, beta: float) -> np.ndarray:
        x = torch.from_numpy(state[:DIMS]).view(1, *CHW)

        def drift(x: Tensor) -> Tensor:
            score = -network(x, t) / process.sigma(t)
            return (-0.5 * beta * (x + score)).flatten()

        jacobian = torch.autograd.functional.jacobian(drift, x).view(DIMS, DIMS)
        return np.concatenate([drift(x).numpy(), [float(jacobian.trace())]])

    state = np.concatenate([(y * process.signal(0)).flatten().numpy(), [0.0]])
    for t in range(1, 12):  # beta(t) jumps from step to step
        beta = process.log_abar(t - 1) - process.log_abar(t)
        state = solve_ivp(field, (t - 1, t), state, args=(beta,), rtol=1e-9, atol=1e-10).y[:, -1]
    theirs = multivariate_normal(np.zeros(DIMS), np.eye(DIMS)).logpdf(state[:DIMS]) + state[DIMS]
    theirs += DIMS * math.log(process.signal(0))  # from x at the first timestep to y = x / sqrt(abar)
    ours = log_density(Denoiser(network, process), y, basis(1), 3000).mean(1)
    assert float(ours) == pytest.approx(theirs, abs=2e-4)


def test_the_solver_is_of_fourth_order() -> None:
    y, denoiser = data(3, ROTATION), exact(CHAIN, ROTATION)
    truth = closed_form(y, CHAIN, 0.0, ROTATION)
    errors = [float((log_density(denoiser, y, basis(3), n).mean(1) - truth).abs().max()) for n in (20, 40, 80)]
    slopes = np.diff(np.log2(errors))
    assert np.all(slopes < -3.5), slopes


def test_a_chain_that_ends_in_pure_noise_is_begun_one_timestep_earlier() -> None:
    terminal = make_process("linear", 50, 1e-4, 0.02, zero_terminal=True)
    y = data(2, ROTATION)
    found = log_density(exact(terminal, ROTATION), y, basis(2), 300).mean(1)
    torch.testing.assert_close(found, closed_form(y, Process(terminal.betas[:-1]), 0.0, ROTATION), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected steps >= 1 and -1 < first < 48, got 0 and 0"):
        log_density(exact(terminal, ROTATION), y, basis(2), 0)


def test_a_chain_of_one_timestep_and_pure_noise_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    process = make_process("linear", 2, 1e-4, 0.02, zero_terminal=True)
    with pytest.raises(UserError, match=r"expected a chain with 2 timesteps or more that are not pure noise, got 1"):
        log_density(exact(process, ROTATION), data(2, ROTATION), basis(2), 10)
    path = tmp_path / "mine.toml"
    config = '{ timesteps = 2, zero_terminal = true, prediction = "v" }'
    path.write_text(f'[measure]\nlikelihoods = ["pf_ode"]\n[[models]]\nmodel = "ddpm"\nconfig = {config}\n')
    with pytest.raises(UserError, match=r"likelihood pf_ode: expected a chain"):
        bench.run(str(path), results=tmp_path / "results")
    assert not list((tmp_path / "results").rglob("*.npz"))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_of_the_exact_denoiser_of_digits_it_is_converged_and_near_the_exact_code_length(schedule: str) -> None:
    """Above the exact one by what dequantisation costs, below the bound, and moved by no more steps of the solver."""
    dataset = catalogue.load("digits")
    shape, x = dataset.shape, dataset.test.images[:25]
    described = registry.load("oracle_pixels").model
    oracle = described.build(shape, build_config(described.config, {"schedule": schedule}, "oracle_pixels"))
    assert isinstance(oracle, OraclePixels)
    oracle.fit(dataset.train.images, Noise(0))
    signs, noise = basis_of_one(len(x), shape.chw), Noise(1, dtype=torch.float64)

    def bits(steps: int, first: float) -> float:
        def density(y: Tensor) -> Tensor:
            z, log_scale = unit_to_signed(y, shape.levels)
            return log_density(oracle.denoiser, z, signs, steps, first) + shape.dims * log_scale

        return float(bits_per_dim(dequantised_nats(density, x, shape, noise).mean(), shape))

    exactly, bound = (
        float(bits_per_dim(oracle.nats(x, name, Noise(0)).total.mean(), shape)) for name in ("exact", "vlb")
    )
    first = first_time(oracle.process, shape.levels)
    coarse, fine = bits(16, first), bits(32, first)
    assert exactly < fine < bound
    assert fine - exactly < 0.2
    assert coarse == pytest.approx(fine, abs=0.05)
    assert bits(16, 0.0) > bound + 1, "the premise: at timestep 0 there is no density between the levels"


def basis_of_one(n: int, chw: tuple[int, int, int]) -> Tensor:
    """The probe by which the trace of a diagonal Jacobian is exact."""
    return torch.ones(n, 1, *chw, dtype=torch.float64)


def test_it_begins_at_the_noise_of_dequantisation_where_that_is_more_than_the_first_timesteps() -> None:
    for name in ("linear", "cosine"):
        process = make_process(name, 1000, 1e-4, 0.02)  # type: ignore[arg-type]
        assert first_time(process, 256) == 0
        u = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        deviation = float(unit_to_signed(dequantise(torch.zeros(100_000), 17, u), 17)[0].std())
        assert level(process, first_time(process, 17)) == pytest.approx(deviation, rel=0.01)


def test_the_scale_of_pixels_and_its_jacobian() -> None:
    y = torch.tensor([0.0, 0.5 / 17, 8.5 / 17, 1.0], dtype=torch.float64, requires_grad=True)
    z, log_scale = unit_to_signed(y, 17)
    torch.testing.assert_close(z.detach()[1:3], torch.tensor([-1.0, 0.0], dtype=torch.float64))
    slope = torch.autograd.grad(z.sum(), y)[0]
    torch.testing.assert_close(slope.log(), torch.full_like(slope, log_scale))


def small(name: str, shape: ImageShape, **config: object) -> GaussianDiffusion:
    model = registry.load(name).model
    made = trainer.build(model, shape, build_config(model.config, {"widths": [4, 4], **config}, name), 0)
    assert isinstance(made, GaussianDiffusion)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    return made.eval()


def test_in_a_model_it_is_the_density_of_dequantised_images() -> None:
    """With the exact denoiser of Gaussian pixels: bits of 256 fine levels near the true ones, errors stated."""
    shape = ImageShape(1, 2, 2, 256)
    model = small("ddpm", shape, timesteps=1000)
    process = model.process

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        t = float(time)
        return process.sigma(t) * x_t / (process.signal(t) ** 2 * 0.09 + process.sigma(t) ** 2)

    model.unet.forward = network  # type: ignore[method-assign]
    x = ((0.3 * Noise(1).normal("x", 500, shape.chw) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    nats = image_nats(model, x, "pf_ode", Noise(0))
    centred = x.double() / 127.5 - 1
    truth = (centred**2 / 0.18 + 0.5 * math.log(2 * math.pi * 0.09) + math.log(127.5)).flatten(1).sum(1)
    assert float((nats.total - truth).mean()) == pytest.approx(0, abs=0.02)
    assert float(nats.standard_errors["trace"].max()) < 1e-3, "a diagonal Jacobian leaves the trace no variance"
    assert float(nats.changes["half the steps"].abs().max()) < 0.1


def test_the_stated_change_is_what_half_the_steps_add(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, totals = ImageShape(1, 2, 2, 17), {}
    model, x = small("ddpm", shape, timesteps=20), torch.tensor([0, 5, 9, 16], dtype=torch.uint8).view(1, 1, 2, 2)
    for parameter in model.parameters():
        parameter.data *= 4
    for steps in (2, 4):
        monkeypatch.setattr(gaussian_diffusion, "PF_ODE_STEPS", steps)
        nats = image_nats(model, x, "pf_ode", Noise(9))
        totals[steps] = nats.total
    assert float((totals[2] - totals[4]).abs()) > 1e-3, "the premise: the solver's steps matter"
    torch.testing.assert_close(nats.changes["half the steps"], totals[2] - totals[4])


def test_the_stated_error_of_the_trace_is_that_of_the_probes_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, each = ImageShape(1, 2, 2, 17), torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    monkeypatch.setattr(gaussian_diffusion, "log_density", lambda denoiser, y, probes, first, steps: each)
    x = torch.zeros(1, *shape.chw, dtype=torch.uint8)
    nats = image_nats(small("ddpm", shape, timesteps=20), x, "pf_ode", Noise(9))
    assert float(nats.standard_errors["trace"]) == pytest.approx(sem(each[0].numpy()))


@pytest.mark.parametrize("name", ["ddpm", "improved_ddpm", "dpm"])
def test_it_is_had_on_request_by_every_model_and_alike_in_any_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_diffusion, "PF_ODE_STEPS", 8)
    shape = ImageShape(1, 4, 4, 17)
    model = small(name, shape, timesteps=20)
    assert "pf_ode" not in kinds(model)
    assert kinds(model, ("pf_ode",))["pf_ode"] == "estimate"
    x = torch.randint(0, 17, (4, *shape.chw), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        whole = image_nats(model, x, "pf_ode", Noise(9))
        halves = [image_nats(model, x[i : i + 2], "pf_ode", Noise(9, first=i)) for i in (0, 2)]
    torch.testing.assert_close(torch.cat([half.total for half in halves]), whole.total, rtol=1e-4, atol=1e-2)
    errors = torch.cat([half.standard_errors["trace"] for half in halves])
    torch.testing.assert_close(errors, whole.standard_errors["trace"], rtol=1e-2, atol=1e-3)
    assert bool((errors > 0).all())


def test_a_matrix_asks_for_it_and_the_number_states_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_diffusion, "PF_ODE_STEPS", 8)
    path = tmp_path / "mine.toml"
    path.write_text('[measure]\nlikelihoods = ["pf_ode"]\n[[models]]\nmodel = "ddpm"\n')
    assert prepare(Options(str(path), results=tmp_path), "cpu", 1).setup.likelihoods == ("pf_ode",)
    path.write_text('[measure]\nlikelihoods = ["pf_odd"]\n[[models]]\nmodel = "ddpm"\n')
    with pytest.raises(UserError, match=r"likelihoods: no model here has 'pf_odd' on request; did you mean 'pf_ode'"):
        prepare(Options(str(path), results=tmp_path), "cpu", 1)
    assert matrices.load("quick")[1].measure.likelihoods == []
    dataset = catalogue.load("digits")
    model = small("ddpm", dataset.shape, timesteps=20)
    plain = {m.metric for m in BitsPerDim().measure(Subject(0, dataset, model, likelihood_images=3))}
    subject = Subject(0, dataset, model, likelihood_images=3, likelihoods=("pf_ode",))
    found = {m.metric: m for m in BitsPerDim().measure(subject)}
    assert set(found) - plain == {
        "bits_per_dim[pf_ode]",
        "bits_per_dim[pf_ode:trace_error]",
        "bits_per_dim[pf_ode:half the steps]",
    }
    assert found["bits_per_dim[pf_ode]"].kind == "estimate"
    assert "standard error of the trace" in found["bits_per_dim[pf_ode]"].note
    assert "half the steps" in found["bits_per_dim[pf_ode]"].note
    assert found["bits_per_dim[pf_ode:trace_error]"].value > 0

"""Progressive distillation: the target of one step for two in closed form, its rounds, its teacher, and its draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import from_signed
from baselines.diffusion.chain_model import no_network
from baselines.diffusion.ddpm import Config as DdpmConfig
from baselines.diffusion.ddpm import Ddpm
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_oracle import GaussianData, sampled_moments
from baselines.diffusion.prediction import Prediction, reading, target
from baselines.diffusion.process import Process, make_process
from baselines.diffusion.progressive_distillation import Config, Grid, ProgressiveDistillation, ddim_in
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE
from baselines.optimisers import learning_rate
from baselines.types import ImageShape
from bench.measure.workload import capture_calls

SHAPE = ImageShape(1, 8, 8, 17)
COSINE = make_process("cosine", 1000, 1e-4, 0.02)
ZERO = make_process("linear", 1000, 1e-4, 0.02, zero_terminal=True)
MEAN = torch.tensor([0.0, 0.7, -0.4, 0.1], dtype=torch.float64).view(4, 1, 1)
VARIANCE = torch.tensor([1.0, 0.3, 0.02, 2.5], dtype=torch.float64).view(4, 1, 1)
SMALL = Config(first=8, last=1, widths=(8, 8))


def gaussian_answer(process: Process, prediction: Prediction, x: Tensor, t: float) -> Tensor:
    """What a perfect network of Gaussian data answers at one time."""
    signal, noise = process.signal(t), process.sigma(t)
    c = signal**2 * VARIANCE + noise**2
    centred = x - signal * MEAN
    x_0, eps = MEAN + signal * VARIANCE / c * centred, noise / c * centred
    out = target(prediction, process, t)
    return out.from_x0 * x_0 + out.from_eps * eps


def network_of(process: Process, prediction: Prediction):  # type: ignore[no-untyped-def]
    """The same for a time of its own each image, in 0 .. TIME_RANGE."""

    def network(x: Tensor, times: Tensor) -> Tensor:
        rows = [
            gaussian_answer(process, prediction, image[None], float(time) * process.timesteps / TIME_RANGE)
            for image, time in zip(x, times.double(), strict=True)
        ]
        return torch.cat(rows)

    return network


def taught(config: Config = SMALL) -> ProgressiveDistillation:
    torch.manual_seed(0)
    model = ProgressiveDistillation(SHAPE, config)
    model.learn_from(teacher())
    return model


def teacher(**changes: object) -> Ddpm:
    torch.manual_seed(2)
    made = Ddpm(SHAPE, DdpmConfig(**{"prediction": "v", "widths": (8, 8), **changes})).eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def context(fraction: float, seed: int = 0) -> Context:
    return Context(0, fraction, torch.Generator().manual_seed(seed), torch.device("cpu"))


def images(n: int) -> Tensor:
    return torch.randint(0, 17, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


# The target, with an exact teacher


@pytest.mark.parametrize("prediction", ["v", "x0"])
@pytest.mark.parametrize("process", [COSINE, ZERO], ids=["cosine", "zero terminal"])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_one_step_to_the_target_ends_where_two_of_the_teachers_do(
    steps: int, process: Process, prediction: Prediction
) -> None:
    """Gaussian data: the two steps multiply x_t's deviation by cosines of the angles between their times."""
    grid = Grid(Denoiser(no_network, process, prediction), steps, torch.device("cpu"))
    step = torch.arange(1, steps + 1)
    x_t = Noise(2, dtype=torch.float64).normal("x", steps, (4, 1, 1))
    wanted = grid.target(x_t, step, network_of(process, prediction), clip=False)
    for i in range(1, steps + 1):
        times = [process.timesteps * (i - shift) / steps - 1 for shift in (0.0, 0.5, 1.0)]
        signal, noise = ([f(t) for t in times] for f in (process.signal, process.sigma))
        c = [signal[k] ** 2 * VARIANCE + noise[k] ** 2 for k in range(3)]
        gain = torch.ones_like(VARIANCE)
        for k in (0, 1):
            gain = gain * (signal[k] * signal[k + 1] * VARIANCE + noise[k] * noise[k + 1]) / c[k]
        end = signal[2] * MEAN + gain * (x_t[i - 1] - signal[0] * MEAN)
        by_one_step = signal[2] * wanted[i - 1] + noise[2] / noise[0] * (x_t[i - 1] - signal[0] * wanted[i - 1])
        torch.testing.assert_close(by_one_step, end, rtol=1e-5, atol=1e-6)  # times are float32, as networks take them


@pytest.mark.parametrize(("clip", "wanted"), [(True, 1.0), (False, 1.7)])
def test_of_a_teacher_that_always_answers_one_image_the_target_is_that_image_clamped_if_asked(
    clip: bool, wanted: float
) -> None:
    """Two steps of DDIM that predict one x_0 are one step that predicts it."""
    grid, step = Grid(Denoiser(no_network, COSINE, "x0"), 3, torch.device("cpu")), torch.tensor([1, 2, 3])
    x_t = Noise(2, dtype=torch.float64).normal("x", 3, (4, 1, 1))
    found = grid.target(x_t, step, lambda x, times: torch.full_like(x, 1.7), clip)
    torch.testing.assert_close(found, torch.full_like(x_t, wanted), rtol=1e-9, atol=1e-9)


def test_the_targets_minimiser_samples_in_half_the_steps_what_the_teacher_samples() -> None:
    """A student that answers with the target everywhere draws the same images with half the calls."""
    steps = 4
    grid = Grid(Denoiser(no_network, COSINE, "x0"), steps, torch.device("cpu"))
    network, x_T = network_of(COSINE, "x0"), Noise(3, dtype=torch.float64).normal("x", 5, (4, 1, 1))

    def student(x: Tensor, t: float) -> Tensor:
        step = torch.full((len(x),), round((t + 1) * steps / COSINE.timesteps))
        return grid.target(x, step, network, clip=False)

    def exact(x: Tensor, t: float) -> Tensor:
        return gaussian_answer(COSINE, "x0", x, t)

    halved = ddim_in(steps, x_T, Denoiser(student, COSINE, "x0"), clip=False)
    whole = ddim_in(2 * steps, x_T, Denoiser(exact, COSINE, "x0"), clip=False)
    torch.testing.assert_close(halved, whole, rtol=1e-4, atol=1e-5)
    other = ddim_in(steps, x_T, Denoiser(exact, COSINE, "x0"), clip=False)
    assert not torch.allclose(other, whole, atol=1e-2), "the premise: fewer steps alone end elsewhere"


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_sampling_has_the_moments_of_ddim_at_equal_parts_of_the_chain(steps: int) -> None:
    path = [COSINE.timesteps * i / steps - 1 for i in range(steps, -1, -1)]
    moves = [COSINE.transition(path[i], path[i + 1]) for i in range(steps)]
    mean, variance = sampled_moments(GaussianData(MEAN, VARIANCE), moves, 0.0)
    x_T = Noise(3, dtype=torch.float64).normal("x", 2, (4, 1, 1))
    x_0 = ddim_in(steps, x_T, Denoiser(lambda x, t: gaussian_answer(COSINE, "v", x, t), COSINE, "v"), clip=False)
    torch.testing.assert_close(x_0, mean + variance.sqrt() * x_T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_weights_are_those_of_section_4(steps: int) -> None:
    grid = Grid(Denoiser(no_network, COSINE, "v"), steps, torch.device("cpu"))
    j = torch.arange(2, 2 * steps + 1, 2)
    snr = torch.tensor(
        [COSINE.signal(t) ** 2 / COSINE.sigma(t) ** 2 for t in (1000 * i / steps - 1 for i in range(1, steps + 1))]
    )
    plus_one, truncated = (grid.weight(j, name).flatten() for name in ("snr_plus_one", "truncated_snr"))
    torch.testing.assert_close(plus_one, snr + 1, rtol=1e-5, atol=0)
    torch.testing.assert_close(truncated, snr.clamp(min=1), rtol=1e-5, atol=0)


def test_snr_plus_one_is_the_square_error_of_v() -> None:
    model = taught()
    x = images(16)
    loss = float(model.loss(Batch(x), context(0.0)).total.detach())
    seen: list[tuple[Tensor, Tensor]] = []
    student = model.students.networks["8"]
    student.register_forward_pre_hook(lambda module, args: seen.append(args))
    assert float(model.loss(Batch(x), context(0.0)).total.detach()) == loss
    x_t, time = seen[0]
    grid = Grid(model.denoiser(8), 8, torch.device("cpu"))
    step = torch.round((time * model.process.timesteps / TIME_RANGE + 1) * 8 / model.process.timesteps).long()
    with torch.no_grad():
        x_0 = grid.target(x_t, step, lambda x, t: model.students(x, t, 16), True)
        signal, noise = grid.signal[2 * step].float(), grid.sigma[2 * step].float()
        v = (signal * x_t - x_0) / noise
        by_hand = (student(x_t, time) - v).square().mean()
    assert loss == pytest.approx(float(by_hand), rel=1e-3)


@pytest.mark.parametrize("weighting", ["snr_plus_one", "truncated_snr"])
def test_the_loss_is_the_square_error_of_x_0_by_the_weighting_asked_for(
    weighting: Literal["snr_plus_one", "truncated_snr"],
) -> None:
    model, seen = taught(replace(SMALL, weighting=weighting)), list[tuple[Tensor, Tensor]]()
    student = model.students.networks["8"]
    student.register_forward_pre_hook(lambda module, args: seen.append(args))
    loss = float(model.loss(Batch(images(16)), context(0.0)).total.detach())
    x_t, time = seen[0]
    grid = Grid(model.denoiser(8), 8, torch.device("cpu"))
    step = torch.round((time + 1) * 8 / 1000).long()
    with torch.no_grad():
        wanted = grid.target(x_t, step, lambda x, t: model.students(x, t, 16), True)
        error = grid.x_0(x_t, 2 * step, student) - wanted
    by_hand = (grid.weight(2 * step, weighting) * error.square()).mean()
    assert loss == pytest.approx(float(by_hand), rel=1e-4)


# Rounds


def test_each_student_begins_as_its_teacher_and_only_it_learns() -> None:
    model, source = taught(), teacher()
    assert model.numbers == (16, 8, 4, 2, 1)
    for fraction, learning in ((0.0, 8), (0.24, 8), (0.25, 4), (0.6, 2), (0.99, 1)):
        model.zero_grad(set_to_none=True)
        model.loss(Batch(images(4)), context(fraction)).total.backward()
        for steps in model.numbers:
            network = model.students.networks[str(steps)]
            moved = [p for p in network.parameters() if p.grad is not None]
            assert bool(moved) == (steps == learning)
    frozen = dict(model.students.networks["16"].named_parameters())
    assert not any(p.requires_grad for p in frozen.values())
    for name, weight in source.unet.named_parameters():
        assert torch.equal(frozen[name], weight)
        assert torch.equal(dict(model.students.networks["1"].named_parameters())[name], weight), "nothing was stepped"


def test_a_round_goes_on_after_a_resume_with_the_students_that_there_were() -> None:
    model = taught()
    model.loss(Batch(images(4)), context(0.3))
    with torch.no_grad():
        for parameter in model.students.networks["4"].parameters():
            parameter.add_(1.0)
    again = taught()
    again.load_state_dict(model.state_dict())
    for ours in (model, again):
        ours.loss(Batch(images(4)), context(0.55))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    two, four = (model.students.networks[k].state_dict() for k in ("2", "4"))
    assert all(torch.equal(two[name], four[name]) for name in two)


def test_the_learning_rate_falls_to_zero_in_every_round() -> None:
    (phase,) = taught().phases()
    rates = [learning_rate(phase.optimiser, i / 1000) for i in range(1000)]
    for start in (0, 250, 500, 750):
        assert rates[start] < 0.05 * SMALL.lr, "it is warmed up"
        assert max(rates[start : start + 250]) == pytest.approx(SMALL.lr, rel=0.01)
        assert rates[start + 249] < 0.01 * SMALL.lr


@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_the_target_is_the_same_every_time_while_the_student_has_dropout(
    fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wanted = taught(replace(SMALL, dropout=0.5)).train(), []
    whole = Grid.target

    def noted(self: Grid, *args: Any, **kwargs: Any) -> Tensor:
        wanted.append(whole(self, *args, **kwargs))
        return wanted[-1]

    monkeypatch.setattr(Grid, "target", noted)
    losses = [model.loss(Batch(images(6)), context(fraction)).total.item() for _ in range(2)]
    assert losses[0] != losses[1], "the premise: the student drops units"
    assert torch.equal(wanted[0], wanted[1])
    learner = model.numbers[int(model.round) + 1]
    assert model.students.networks[str(learner)].training


def test_without_a_teacher_it_does_not_train() -> None:
    model = ProgressiveDistillation(SHAPE, SMALL)
    with pytest.raises(UserError, match="no teacher yet"):
        model.loss(Batch(images(2)), context(0.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "eps"}, r"prediction: expected the teacher's, 'eps', got 'v'"),
        ({"timesteps": 500}, r"timesteps: expected the teacher's, 500, got 1000"),
        ({"widths": (8, 16)}, "widths"),
        ({"zero_terminal": True}, r"zero_terminal: expected the teacher's, True, got False"),
        ({"schedule": "linear"}, "schedule"),
        ({"attention": True}, "attention"),
    ],
)
def test_another_teacher_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ProgressiveDistillation(SHAPE, SMALL).learn_from(teacher(**changes))


def test_bad_numbers_of_steps_are_refused() -> None:
    for first, last in ((12, 8), (8, 0), (6, 4), (4, 8), (0, 0)):
        with pytest.raises(UserError, match="power of two"):
            Config(first=first, last=last)
    with pytest.raises(UserError, match="at most half"):
        Config(first=512, timesteps=1000)
    assert Config(first=12, last=3).students == (12, 6, 3)
    assert Config(first=4, last=4).students == (4,)


# Draws


@pytest.mark.parametrize("steps", [8, 4, 2, 1, None])
def test_a_student_is_called_once_a_step(steps: int | None) -> None:
    model = taught()
    model.finish(images(1), Noise(0))
    with capture_calls(model) as calls:
        model.sample(2, Draw(steps=steps), Noise(0))
    assert calls.count == (steps or 1)


def test_draws_take_the_student_of_their_steps() -> None:
    model = taught()
    model.finish(images(1), Noise(0))
    before = {steps: model.sample(3, Draw(steps=steps), Noise(0)) for steps in (4, 2)}
    with torch.no_grad():
        for parameter in model.students.networks["2"].parameters():
            parameter.mul_(0.5)
    assert torch.equal(before[4], model.sample(3, Draw(steps=4), Noise(0)))
    assert not torch.equal(before[2], model.sample(3, Draw(steps=2), Noise(0)))
    with pytest.raises(UserError, match="expected one of 8, 4, 2, 1 "):
        ProgressiveDistillation.check_draw(SMALL, Draw(steps=3))
    with pytest.raises(UserError, match="takes no eta"):
        ProgressiveDistillation.check_draw(SMALL, Draw(steps=2, eta=1.0))


@pytest.mark.parametrize("clip", [True, False])
def test_a_draw_is_clamped_where_it_asks_to_be(clip: bool) -> None:
    model = taught()
    model.finish(images(1), Noise(0))
    x_T = Noise(0).normal("x_T", 3, SHAPE.chw)
    with torch.no_grad():
        asked, other = (from_signed(ddim_in(4, x_T, model.denoiser(4), c), 17) for c in (clip, not clip))
    assert torch.equal(model.sample(3, Draw(steps=4, clip=clip), Noise(0)), asked)
    assert not torch.equal(asked, other), "the premise: it matters"


@pytest.mark.parametrize("timesteps", [1000, 200])
def test_a_teachers_copy_draws_what_the_teachers_own_ddim_draws(timesteps: int) -> None:
    """At 8 steps of such a T trailing timesteps are whole numbers, and the samplers one and the same."""
    source, model = teacher(timesteps=timesteps), ProgressiveDistillation(SHAPE, replace(SMALL, timesteps=timesteps))
    model.learn_from(source)
    x_T = Noise(0).normal("x_T", 3, SHAPE.chw)
    theirs = source.draw_x0(x_T, Draw("ddim", 8, spacing="trailing"), Noise(0))
    with torch.no_grad():
        torch.testing.assert_close(ddim_in(8, x_T, model.denoiser(8), True), theirs, rtol=1e-4, atol=1e-4)


def test_readings_of_real_times_are_exact() -> None:
    grid = Grid(Denoiser(no_network, COSINE, "v"), 3, torch.device("cpu"))
    x_0, eps = (Noise(k, dtype=torch.float64).normal("x", 6, (4, 1, 1)) for k in (1, 2))
    j = torch.arange(1, 7)
    for k in range(6):
        t = 1000 * (k + 1) / 6 - 1
        x_t = COSINE.diffuse(x_0, t, eps)
        wants, read = target("v", COSINE, t), reading("v", COSINE, t)
        v = wants.from_x0 * x_0 + wants.from_eps * eps
        torch.testing.assert_close(read.x0_from_x * x_t + read.x0_from_out * v, x_0, rtol=1e-6, atol=1e-6)
        found = grid.x_0(x_t[k : k + 1], j[k : k + 1], lambda x, time, v=v, k=k: v[k : k + 1])
        torch.testing.assert_close(found, x_0[k : k + 1], rtol=1e-6, atol=1e-6)
        assert float(grid.time[k + 1]) == pytest.approx(t, rel=1e-6)
    assert math.isnan(float(grid.from_x[0])), "x_0 itself is never predicted from"

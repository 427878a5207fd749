"""What the standard trainer costs beside a bare loop that trains the same network on the same data."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from baselines import registry, trainer
from baselines.config import build_config
from baselines.contract import GenerativeModel
from baselines.data import digits
from baselines.data.dataset import Dataset
from baselines.types import Budget
from bench.measure.memory import keep_freed_memory

pytestmark = pytest.mark.slow

Compare = Callable[..., dict[str, Any]]

ROUNDS, STEPS = 11, 150
QUIET = {"training.validations": 1, "training.validation_images": 1}  # a bare loop has no validation


@pytest.fixture(autouse=True)
def as_cells_run() -> None:
    keep_freed_memory()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits.load()


def model_of(name: str, data: Dataset) -> Any:
    entry = registry.load(name).model
    return trainer.build(entry, data.shape, build_config(entry.config, QUIET, name), seed=0)


def standard(model: GenerativeModel, data: Dataset) -> Callable[[], None]:
    """A run of the trainer from its start to its checkpointed end."""
    size = model.training_config.batch_size  # type: ignore[attr-defined]

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer.Trainer(model, data, 0, Budget(images=STEPS * size), Path(folder)).run()

    return work


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    def average(means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(means, values, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(module, multi_avg_fn=average)  # type: ignore[arg-type]


def bare_vae(model: Any, data: Dataset) -> Callable[[], None]:
    """Forward, backward, fused Adam, a cosine schedule and an average of the weights; no more."""
    images, size, lr = data.train.images, model.training_config.batch_size, model.config.lr
    dims = data.shape.dims

    def work() -> None:
        model.train()
        means = [averaged(part, model.training_config.ema_decay) for part in (model.encoder, model.decoder)]
        optimiser = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
        order = torch.randint(len(images), (STEPS, size))
        for step in range(STEPS):
            x = images[order[step]]
            mean, log_std = model.posterior(x)
            z = mean + log_std.exp() * torch.randn_like(mean)
            kl = 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(1).mean()
            loss = (kl - model.log_likelihood(x, z).mean()) / dims
            assert math.isfinite(float(loss))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * step / STEPS))
            optimiser.step()
            for part, average in zip((model.encoder, model.decoder), means, strict=True):
                average.update_parameters(part)

    return work


def bare_dcgan(model: Any, data: Dataset) -> Callable[[], None]:
    """The loop of many a tutorial: D on real and detached generated images, then G; fused Adam, an average of G."""
    images, size, config = data.train.images, model.training_config.batch_size, model.config
    half = 1 / (data.shape.levels - 1)

    def blurred(x: Tensor) -> Tensor:
        return x + (2 * torch.rand_like(x) - 1) * half

    def work() -> None:
        model.train()
        mean = averaged(model.generator, model.training_config.ema_decay)
        betas = (config.beta1, 0.999)
        of_d = torch.optim.Adam(model.discriminator.parameters(), lr=config.lr_discriminator, betas=betas, fused=True)
        of_g = torch.optim.Adam(model.generator.parameters(), lr=config.lr_generator, betas=betas, fused=True)
        order = torch.randint(len(images), (STEPS, size))
        for step in range(STEPS):
            x = images[order[step]].float() * (2 * half) - 1
            with torch.no_grad():
                fake = model.generator(torch.randn(size, config.latent))
            real, made = model.discriminator(blurred(x)), model.discriminator(blurred(fake))
            loss = F.softplus(-real).mean() + F.softplus(made).mean()
            assert math.isfinite(float(loss))
            of_d.zero_grad(set_to_none=True)
            loss.backward()
            of_d.param_groups[0]["lr"] = config.lr_discriminator * (1 - step / STEPS)
            of_d.step()
            model.discriminator.requires_grad_(False)
            loss = F.softplus(-model.discriminator(blurred(model.generator(torch.randn(size, config.latent))))).mean()
            assert math.isfinite(float(loss))
            of_g.zero_grad(set_to_none=True)
            loss.backward()
            of_g.param_groups[0]["lr"] = config.lr_generator * (1 - step / STEPS)
            of_g.step()
            model.discriminator.requires_grad_(True)
            mean.update_parameters(model.generator)

    return work


@pytest.mark.parametrize(("name", "bare"), [("vae", bare_vae), ("dcgan", bare_dcgan)])
def test_the_trainer_beside_a_bare_loop(
    compare: Compare, benchmark: Any, data: Dataset, name: str, bare: Callable[[Any, Dataset], Callable[[], None]]
) -> None:
    ours, theirs = model_of(name, data), model_of(name, data)
    contenders = {"the trainer": standard(ours, data), "a bare loop": bare(theirs, data)}
    compare(
        f"{STEPS} steps of {name}'s training, digits, batch {ours.training_config.batch_size}",
        contenders,
        ROUNDS,
        "trainer",
    )
    overhead = 1 / benchmark.extra_info["ratio"]["a bare loop"] - 1
    benchmark.extra_info["notes"] = {"a bare loop": f"overhead {100 * overhead:.1f} %"}

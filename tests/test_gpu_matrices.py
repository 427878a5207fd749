"""The matrices for one GPU: on their data, which is not shipped, every model builds and every draw is possible."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines import registry, trainer
from baselines.config import build_config
from baselines.contract import GenerativeModel, Trains
from baselines.data import celeba
from baselines.data.dataset import Dataset, Split
from baselines.given import Given, Requests
from baselines.types import Budget, Conditions, ImageShape
from bench import left_out, matrix, plan
from bench.job import Setup

SHAPES = {
    "mnist": ImageShape(1, 28, 28),
    "fashion-mnist": ImageShape(1, 28, 28),
    "svhn": ImageShape(3, 32, 32),
    "cifar10": ImageShape(3, 32, 32),
    "celeba": ImageShape(3, 64, 64),
}
MATRICES = ("cifar10", "gpu", "gpu-mnist")
PAIRS = sorted(
    {
        (name, item.model, item.dataset)
        for name in MATRICES
        for item in matrix.expand(matrix.load(name)[1])
        if (name, item.dataset) != ("gpu", "mnist")  # of the same shape as fashion-mnist
    }
)


def trains(model: str) -> bool:
    kind = registry.load(model).model.build
    return isinstance(kind, type) and issubclass(kind, Trains)


TRAINED = [pair for pair in PAIRS if trains(pair[1])]


def like(name: str) -> Dataset:
    """A few random images of a data set's shape, with the task and the conditions that it has."""
    shape = SHAPES[name]
    faces = name == "celeba"

    def split(n: int, seed: int) -> Split:
        images = torch.randint(0, 256, (n, *shape.chw), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
        values = torch.zeros(n, 3, dtype=torch.int64)
        requests = Requests(Given(images=images, attributes=values + 1)) if faces else None
        return Split(images, None if faces else torch.arange(n) % 10, attributes=values, requests=requests)

    return Dataset(
        name=name,
        shape=shape,
        train=split(16, 0),
        val=split(4, 1),
        test=split(4, 2),
        source="random",
        note="",
        classes=None if faces else 10,
        tasks=frozenset({"unconditional", "domain_translation"}) if faces else frozenset({"unconditional"}),
        conditions=Conditions(attributes=celeba.ATTRIBUTES, source=shape) if faces else Conditions(),
    )


def built(name: str, model: str, dataset: str, batch_size: int | None = None) -> tuple[GenerativeModel, Dataset]:
    item = next(w for w in matrix.expand(matrix.load(name)[1]) if (w.model, w.dataset) == (model, dataset))
    entry, data = registry.load(model), like(dataset)
    config = build_config(entry.model.config, item.config, model)
    if batch_size is not None and hasattr(config, "training"):
        small = replace(config.training, batch_size=batch_size, validations=1, snapshots=1, snapshot_images=2)
        config = replace(config, training=small)
    return trainer.build(entry.model, data.shape, config, 0, data.conditions), data


@pytest.mark.parametrize("name", MATRICES)
def test_every_config_draw_and_task_is_checked_as_before_a_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plan, left_out):
        monkeypatch.setattr(module, "open_dataset", lambda dataset, folder: (like(dataset), dataset))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda program: program)  # with a compiler
    wanted = matrix.expand(matrix.load(name)[1])
    setup = Setup(tmp_path, "cuda")
    kept, unfit = left_out.fitting(wanted, setup)
    assert not unfit
    assert left_out.possible(kept, setup) == (kept, {})
    trainings = plan.plan(kept, setup, wanted)
    models = {training.job.cell.model for training in trainings}
    families = {registry.load(model).family for model in models}
    assert families == {"autoencoders", "gans", "autoregressive", "flows", "diffusion", "reference"}
    assert all(training.draws for training in trainings)


@pytest.mark.parametrize(("name", "model", "dataset"), PAIRS)
def test_every_model_builds_on_the_shape_of_its_data(name: str, model: str, dataset: str) -> None:
    net, data = built(name, model, dataset)
    assert net.shape == data.shape


@pytest.mark.parametrize("name", ["gpu", "gpu-mnist"])
def test_each_way_to_run_the_network_is_drawn_beside_the_plain_call_of_the_same_checkpoint(name: str) -> None:
    draws = [
        draw
        for item in matrix.expand(matrix.load(name)[1], datasets=["mnist"], seeds=[0])
        for draw in item.draws
        if item.model == "ddpm" and (draw.sampler, draw.steps, draw.eta) == ("ddim", 50, 0.0)
    ]
    kinds = {frozenset(draw.options.items()) for draw in draws}
    bf16, compiled, graph = ("precision", "bf16"), ("compile", True), ("graph", True)
    assert kinds >= {frozenset(), *(frozenset(one) for one in ([bf16], [compiled], [graph], [bf16, compiled, graph]))}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model", "dataset"), TRAINED)
def test_every_model_trains_for_a_step_on_the_shape_of_its_data(
    name: str, model: str, dataset: str, tmp_path: Path
) -> None:
    size = 16 if model == "glow" else 2  # whose first batch sets its scales
    net, data = built(name, model, dataset, batch_size=size)
    assert isinstance(net, Trains)
    task = registry.load(model).model.task
    run = trainer.Trainer(net, data, 0, Budget(images=size), tmp_path, lambda *_: None, "cpu", task=task)
    assert run.run().step == 1

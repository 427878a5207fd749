"""Every model on a device that is not the CPU: it leaves no tensor behind, and draws and scores as on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines import registry, trainer
from baselines.contract import Fits, GenerativeModel, Illustrates, Noise, Trains
from baselines.data.likelihood import image_nats, kinds
from baselines.types import Budget
from tests import far_device
from tests.models.test_contract import SHAPES, a_draw, build, dataset_of, given_for, images_of

SHAPE = SHAPES["digits"]
QUICK = ("dcgan", "made")
LACKING = ("text2image",)  # a GRU has a kernel of its own on GPUs, which the stand-in has not
NAMES = [name for name in registry.names() if name not in LACKING]


def learned(name: str, folder: Path, device: str) -> GenerativeModel:
    task = registry.load(name).model.task
    model, dataset = build(name, SHAPE, small=True), dataset_of(SHAPE, task)
    if isinstance(model, Fits):
        trainer.fit(model, dataset, 0)
        return model.to(device).eval()
    assert isinstance(model, Trains)
    batch = model.training_config.batch_size
    trainer.Trainer(model, dataset, 0, Budget(images=2 * batch), folder, device=device, task=task).run()
    return model.eval()


def shown(name: str, model: GenerativeModel, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Images and likelihoods of a model that is on this device, on the CPU."""
    given, noise, x = given_for(name, SHAPE, 0, 3), Noise(5, device=device), images_of(SHAPE, 3).to(device)
    with torch.no_grad():
        images = model.sample(3, a_draw(model), noise, None if given is None else given.to(device))
        assert images.device.type == device
        nats = {likelihood: image_nats(model, x, likelihood, noise).total.cpu() for likelihood in kinds(model)}
        if isinstance(model, Illustrates):
            model.pictures(x, noise)
    return images.cpu(), nats


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_what_learned_on_another_device_draws_and_scores_there_as_on_the_cpu(name: str, tmp_path: Path) -> None:
    far_device.alone("tests.models.test_far_device", "compare_devices", name, str(tmp_path))


def compare_devices(name: str, folder: str) -> None:
    with far_device.device() as far:
        model = learned(name, Path(folder), far)
        images, nats = shown(name, model, far)
        weights = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
    near = build(name, SHAPE, small=True)
    near.load_state_dict(weights)
    expected, expected_nats = shown(name, near.eval(), "cpu")
    assert float(((images.int() - expected.int()).abs() > 1).float().mean()) < 0.01
    for likelihood, value in expected_nats.items():
        torch.testing.assert_close(nats[likelihood], value, rtol=1e-4, atol=1e-2)


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    far_device.alone("tests.models.test_far_device", "see_what_it_refuses")


def see_what_it_refuses() -> None:
    with far_device.device() as far:
        there, here = torch.ones(3, device=far), torch.arange(3)
        assert (there + torch.tensor(2.0)).cpu().tolist() == [3.0] * 3
        assert there[here].device.type == far
        assert torch.tensor([1.0], device=far).device.type == far
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="expected"):
                mixed()
        with pytest.raises(RuntimeError, match="generator"):
            there.normal_(generator=torch.Generator())
        weight = torch.ones(3, device=far, requires_grad=True)
        (weight * there).sum().backward()
        assert weight.grad is not None
        assert weight.grad.device.type == far

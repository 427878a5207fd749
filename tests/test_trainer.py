"""The trainer's promises: exact resume, phases that keep to themselves, EMA, selection, NaN told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from baselines import checkpoint, trainer
from baselines.batches import Order
from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLikelihood,
    Losses,
    Nats,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
    Trains,
)
from baselines.data.dataset import Dataset, Split
from baselines.errors import DivergedError, UserError
from baselines.types import Budget, ImageShape, Kind

SHAPE = ImageShape(1, 4, 4, 5)


class Toy(GenerativeModel, Trains, HasLikelihood):
    """A categorical over levels with dropout and a second, adversarial-like phase: small, but with every part."""

    samplers = ("native",)
    averaged = ("net",)
    selection = "exact"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"exact": "exact"}

    def __init__(self, poison_at: int | None = None) -> None:
        super().__init__()
        self.shape = SHAPE
        self.training_config = Training(batch_size=8, ema_decay=0.9, clip_norm=1.0, validations=5)
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 16 * 5))
        self.critic = nn.Linear(16, 1)
        self.seen: list[Tensor] = []
        self.poison_at = poison_at

    def phases(self) -> tuple[Phase, ...]:
        fast = OptimiserConfig(lr=1e-2, warmup=0.1, decay="cosine")
        return (
            Phase("critic", ("critic",), self.critic_loss, OptimiserConfig("sgd", lr=1e-2), repeat=2),
            Phase("net", ("net",), self.net_loss, fast, every=2),
        )

    def logits(self, x: Tensor) -> Tensor:
        return self.net(x.float().flatten(1) / 4).view(-1, 5, 16)

    def critic_loss(self, batch: Batch, context: Context) -> Losses:
        self.seen.append(batch.images)
        noise = context.normal(len(batch.images), 16)
        real, fake = self.critic(batch.images.float().flatten(1)), self.critic(noise)
        return Losses(nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean())

    def net_loss(self, batch: Batch, context: Context) -> Losses:
        loss = nn.functional.cross_entropy(self.logits(batch.images), batch.images.flatten(1).long())
        fool = -self.critic(self.logits(batch.images).mean(1)).mean()
        if context.step == self.poison_at:
            loss = loss * torch.nan
        return Losses(loss + 0.01 * fool, {"fool": fool})

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        return (noise.uniform("x", n, SHAPE.chw) * 5).to(torch.uint8)

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        loss = nn.functional.cross_entropy(self.logits(x), x.flatten(1).long(), reduction="none")
        return Nats(loss.sum(1))


@pytest.fixture
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 5, (50, *SHAPE.chw), generator=generator, dtype=torch.uint8)
    return Dataset("toy", SHAPE, Split(images[:30]), Split(images[30:40]), Split(images[40:]), "here", "none")


def toy_trainer(dataset: Dataset, folder: Path, poison_at: int | None = None) -> trainer.Trainer:
    torch.manual_seed(1)
    return trainer.Trainer(Toy(poison_at), dataset, 7, Budget(images=16 * 40), folder)


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(dataset: Dataset, tmp_path: Path) -> None:
    whole = toy_trainer(dataset, tmp_path / "whole")
    whole.run()
    for stop in (3, 17, 18, 31):
        toy_trainer(dataset, tmp_path / "parts").run(stop_after=stop)  # a new process knows only the folder
    parts = toy_trainer(dataset, tmp_path / "parts")
    torch.rand(5)  # what happens elsewhere to the global generator does not matter
    parts.run()
    assert parts.state.resumed == 4, "the premise: it was interrupted"
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name

    def curve(state: trainer.TrainState) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in state.curve]

    assert curve(whole.state) == curve(parts.state)
    assert (whole.state.best, whole.state.best_images) == (parts.state.best, parts.state.best_images)


def test_every_phase_moves_its_own_parameters_only(dataset: Dataset, tmp_path: Path) -> None:
    run = toy_trainer(dataset, tmp_path)
    for phase in run.phases:
        before = {name: p.clone() for name, p in run.model.named_parameters()}
        run._update(phase, run.batches.at(0, run.config.batch_size), 0.5, 0)
        for name, p in run.model.named_parameters():
            assert (not torch.equal(p, before[name])) == name.startswith(phase.modules), (phase.name, name)
        assert all(p.requires_grad for p in run.model.parameters())


def test_every_and_repeat_count_updates_and_images(dataset: Dataset, tmp_path: Path) -> None:
    run = toy_trainer(dataset, tmp_path)
    run.run()
    assert run.state.step == 40
    assert run.state.images == 16 * 40  # two batches of 8 an iteration
    assert int(run.optimisers["net"].state_dict()["state"][0]["step"]) == 20  # every second iteration
    assert len(run.model.seen) == 80


def test_the_order_shows_every_image_once_an_epoch(dataset: Dataset) -> None:
    order = Order(30, 5)
    taken = torch.cat([order.take(position, 7) for position in range(0, 84, 7)])
    for epoch in (taken[:30], taken[30:60]):
        assert sorted(epoch.tolist()) == list(range(30))
    assert not torch.equal(taken[:30], taken[30:60])


def test_the_average_is_the_recursion_of_the_weights(dataset: Dataset, tmp_path: Path) -> None:
    run = toy_trainer(dataset, tmp_path)
    weight = run.model.net[0].weight
    mean = None
    for step in range(6):
        run._iterate(step / 40)
        now = weight.detach().clone()
        decay = min(0.9, (1 + step) / (10 + step))
        mean = now if mean is None else decay * mean + (1 - decay) * now
    torch.testing.assert_close(run.averages["net"].module[0].weight.detach(), mean)


def test_the_best_validation_score_is_the_checkpoint_that_stays(dataset: Dataset, tmp_path: Path) -> None:
    run = toy_trainer(dataset, tmp_path)
    run.run()
    scores = {row["images"]: row["val_bits_per_dim"] for row in run.state.curve if "val_bits_per_dim" in row}
    assert len(scores) == 5
    assert run.state.best == min(scores.values()) == scores[run.state.best_images]
    run.averages.clear()
    assert run._validate() == pytest.approx(run.state.best, rel=1e-6)


def test_nan_stops_with_phase_and_step(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"phase 'net', step 6"):
        toy_trainer(dataset, tmp_path, poison_at=6).run()


def test_what_only_validation_or_the_last_weights_show_is_named_with_phase_and_step_too(
    dataset: Dataset, tmp_path: Path
) -> None:
    run = toy_trainer(dataset, tmp_path)
    run._iterate(0.0)
    run.averages.clear()
    weight = next(run.model.net.parameters())
    weight.data.flatten()[0] = float("nan")
    with pytest.raises(DivergedError, match=r"after phase 'critic', 'net', step 1, on the validation split: .*NaN"):
        run._validate()
    with pytest.raises(DivergedError, match=r"after phase 'net', step 1: net\.\S+ is NaN or infinite"):
        run._finish()


def test_validation_is_no_part_of_the_iterations_time(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class FakeTime:
        perf_counter = process_time = staticmethod(lambda: now[0])

    run = toy_trainer(dataset, tmp_path)
    iterate, validate = run._iterate, run._validate

    def slow(work: Callable[..., object], seconds: float) -> Callable[..., object]:
        def worked(*args: object) -> object:
            now[0] += seconds
            return work(*args)

        return worked

    monkeypatch.setattr("baselines.trainer.time", FakeTime)
    monkeypatch.setattr(run, "_iterate", slow(iterate, 1.0))
    monkeypatch.setattr(run, "_validate", slow(validate, 100.0))
    state = run.run()
    assert state.iterating_seconds == state.iterating_cpu_seconds == state.step
    assert state.seconds >= state.step + 100 * 4


def test_the_validation_split_never_meets_an_optimiser(dataset: Dataset, tmp_path: Path) -> None:
    run = toy_trainer(dataset, tmp_path)
    run.run()
    trained_on = {image.numpy().tobytes() for batch in run.model.seen for image in batch}
    assert trained_on == {image.numpy().tobytes() for image in dataset.train.images}


def flip_a_byte(folder: Path) -> None:
    file = next(folder.glob("state-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 0xFF
    file.write_bytes(data)


def cut(folder: Path) -> None:
    file = next(folder.glob("state-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def garble_the_pointer(folder: Path) -> None:
    (folder / "state.json").write_text('{"file": "../../etc/passwd", "sha256": ')


@pytest.mark.parametrize("harm", [flip_a_byte, cut, garble_the_pointer])
def test_a_damaged_checkpoint_is_named_and_can_be_set_aside(
    dataset: Dataset, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    toy_trainer(dataset, tmp_path).run(stop_after=3)
    harm(tmp_path)
    with pytest.raises(checkpoint.CorruptCheckpointError, match="state"):
        toy_trainer(dataset, tmp_path).run()
    assert checkpoint.set_aside(tmp_path, "state")
    toy_trainer(dataset, tmp_path).run(stop_after=3)  # starts again


def test_a_checkpoint_pointer_cannot_leave_its_folder(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "other", "model", {"w": torch.ones(1)}, {})
    checkpoint.save(tmp_path / "mine", "model", {"w": torch.zeros(1)}, {})
    outside = next((tmp_path / "other").glob("*.safetensors"))
    pointer = tmp_path / "mine" / "model.json"
    pointer.write_text(
        (tmp_path / "other" / "model.json").read_text().replace(outside.name, f"../other/{outside.name}")
    )
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.load(tmp_path / "mine", "model")


def test_seconds_budget_ends_and_says_it_is_not_reproducible(dataset: Dataset, tmp_path: Path) -> None:
    run = trainer.Trainer(Toy(), dataset, 0, Budget.parse("0.2s"), tmp_path)
    run.run()
    assert run.state.images > 0
    assert not run.budget.reproducible


def test_a_phase_without_parameters_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    class Empty(Toy):
        def phases(self) -> tuple[Phase, ...]:
            return (Phase("idle", ("net.2",), self.net_loss, OptimiserConfig()),)

    with pytest.raises(UserError, match="idle"):
        trainer.Trainer(Empty(), dataset, 0, Budget(images=8), tmp_path)

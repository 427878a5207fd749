"""Images drawn during training: when, by which weights, without a trace in the training, and kept through a resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines import checkpoint, snapshots, trainer
from baselines.contract import Draw, Noise
from baselines.data import catalogue
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.gans.sngan_hinge import Config, SnganHinge
from baselines.gans.wgan_gp import Config as WganConfig
from baselines.gans.wgan_gp import WganGp
from baselines.noise import derive_seed
from baselines.types import Budget
from bench.job import Setup
from bench.matrix import Wanted
from bench.plan import plan
from bench.worker import run_job

STEPS = 20
SMALL = Config(width=4, discriminator_width=4)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalogue.load("digits")


def run(digits: Dataset, folder: Path, count: int, images: int = 6) -> trainer.Trainer:
    torch.manual_seed(0)
    training = replace(SMALL.training, snapshots=count, snapshot_images=images)
    model = SnganHinge(digits.shape, replace(SMALL, training=training))
    return trainer.Trainer(model, digits, 1, Budget(images=32 * STEPS), folder)


def test_they_are_taken_at_equal_shares_of_the_budget_the_end_included(digits: Dataset, tmp_path: Path) -> None:
    done = run(digits, tmp_path, 5)
    done.run()
    assert [*done.snapshots.taken] == [32 * step for step in (4, 8, 12, 16, 20)]
    for images in done.snapshots.taken.values():
        assert images.shape == (6, *digits.shape.chw)
        assert images.dtype == torch.uint8


def test_the_last_one_is_what_the_trained_model_draws_of_the_same_noise(digits: Dataset, tmp_path: Path) -> None:
    """So averaged weights and evaluation mode stand behind each of them."""
    done = run(digits, tmp_path, 4)
    done.run()
    noise = Noise(derive_seed(1, "snapshots"))
    with torch.no_grad():
        assert torch.equal(done.snapshots.taken[32 * STEPS], done.model.sample(6, Draw(), noise))
    first, *_, last = done.snapshots.taken.values()
    assert not torch.equal(first, last), "the premise: training moves them"


def test_training_is_the_same_with_and_without_them(digits: Dataset, tmp_path: Path) -> None:
    with_them, without = run(digits, tmp_path / "with", 7), run(digits, tmp_path / "without", 0)
    with_them.run()
    without.run()
    assert with_them.snapshots.taken
    assert without.snapshots.taken == {}
    for name, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, with_them.model.state_dict()[name]), name


def test_an_interrupted_run_keeps_those_that_it_took(digits: Dataset, tmp_path: Path) -> None:
    whole = run(digits, tmp_path / "whole", 5)
    whole.run()
    run(digits, tmp_path / "parts", 5).run(stop_after=9)
    parts = run(digits, tmp_path / "parts", 5)
    parts.run()
    assert parts.state.resumed == 1, "the premise"
    assert [*parts.snapshots.taken] == [*whole.snapshots.taken]
    assert all(torch.equal(images, parts.snapshots.taken[seen]) for seen, images in whole.snapshots.taken.items())


def test_what_is_kept_is_read_back_in_the_order_of_training_and_damage_is_told(tmp_path: Path) -> None:
    taken = {seen: torch.full((2, 1, 3, 3), seen % 7, dtype=torch.uint8) for seen in (90, 1000, 200)}
    assert snapshots.load(tmp_path) == {}
    snapshots.save(tmp_path, taken)
    read = snapshots.load(tmp_path)
    assert [*read] == [90, 200, 1000]
    assert all(torch.equal(images, taken[seen]) for seen, images in read.items())
    next(tmp_path.glob("snapshots-*.safetensors")).write_bytes(b"")
    with pytest.raises(checkpoint.CorruptCheckpointError, match="snapshots"):
        snapshots.load(tmp_path)


def test_each_repeat_of_a_phase_counts_towards_the_budget(digits: Dataset, tmp_path: Path) -> None:
    config = WganConfig(width=4, critic_width=4, critic_steps=3)
    training = replace(config.training, snapshots=2, snapshot_images=3)
    model = WganGp(digits.shape, replace(config, training=training))
    size = 3 * training.batch_size
    done = trainer.Trainer(model, digits, 0, Budget(images=size * 4), tmp_path)
    done.run()
    assert [*done.snapshots.taken] == [size * 2, size * 4]


@pytest.mark.parametrize("wrong", [{"snapshots": -1}, {"snapshot_images": 0}], ids=str)
def test_bad_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"training\.{next(iter(wrong))}: expected"):
        replace(SMALL.training, **wrong)  # type: ignore[arg-type]


def test_a_training_leaves_charts_and_scores_over_training_and_leaves_them_again_when_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baselines.gans.in_one_dimension.STEPS", 10)
    monkeypatch.setattr("baselines.gans.in_one_dimension.SHOWN", (0, 10))
    config = {"hidden": 16, "training": {"snapshots": 3, "snapshot_images": 20}}
    wanted = Wanted("gan", "digits", 0, Budget(images=64 * 6), config, (Draw(),), (None,))
    setup = Setup(tmp_path, "cpu", metrics=("over_training", "wasserstein"))
    (training,) = plan([wanted], setup)
    record = run_job((training.job, None), lambda told: None)
    roles = [artifact.role for artifact in record.artifacts]
    assert roles.count("chart") == 2
    assert roles.count("over_training") == 1
    course = next(a for a in record.artifacts if a.role == "over_training")
    assert json.loads((tmp_path / course.path).read_text())["images"] == [128, 256, 384]
    assert "modes_late[digits-cnn]" in {m.metric for m in record.measured}
    assert record.skipped["wasserstein"] == "the model has no critic"
    assert not list(training.job.checkpoint_folder.glob("state*")), "the state is gone, the snapshots stay"
    (tmp_path / course.path).unlink()
    again = run_job((training.job, record), lambda told: None)
    assert {a.sha256 for a in again.artifacts} == {a.sha256 for a in record.artifacts}
    next(training.job.checkpoint_folder.glob("snapshots-*")).write_bytes(b"")
    with pytest.raises(UserError, match="to train again"):
        run_job((training.job, record), lambda told: None)

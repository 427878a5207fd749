"""One training by several processes equals one by a single process with the same batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from baselines import registry
from baselines.contract import Batch, Context, GenerativeModel, Trains
from baselines.errors import UserError
from baselines.noise import seed_dropout
from baselines.parameters import others, phase_parameters, without_gradients
from baselines.sharing import Share, Team
from baselines.types import Budget
from tests.models.conditions import ATTRIBUTES
from tests.models.test_contract import SHAPES, build, given_for, images_of
from tests.two_ranks import STEPS, a_trainer, train

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
COUPLED = {
    "cyclegan",
    "dcgan",
    "ddgan",
    "iaf",
    "infogan",
    "progan",
    "puzzlegan",
    "sngan_hinge",
    "text2image",
    "wgan_gp",
}


class Two(Team):
    """One of two that never meet."""

    size = 2


def trainable() -> dict[str, type[GenerativeModel]]:
    kinds = {name: registry.load(name).model.build for name in registry.names()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Trains)}


def refused(model: GenerativeModel) -> str:
    assert isinstance(model, Trains)
    try:
        Two().check(model, 64, Budget(images=64), model.coupled)
    except UserError as error:
        return str(error)
    return ""


def test_the_models_that_need_their_whole_batch_say_why() -> None:
    told = {name: refused(build(name, SHAPES["digits"])) for name in trainable()}
    assert {name for name, why in told.items() if why} == COUPLED
    assert "batch norm takes the statistics of the whole batch" in told["dcgan"]


def test_what_two_processes_cannot_share_is_refused() -> None:
    model = build("made", SHAPES["digits"])
    with pytest.raises(UserError, match=r"a training\.batch_size that 2 divides, got 63"):
        Two().check(model, 63, Budget(images=64), "")
    with pytest.raises(UserError, match="a budget in images, got 5 s"):
        Two().check(model, 64, Budget(seconds=5), "")
    Team().check(model, 63, Budget(seconds=5), "anything")  # alone there is nothing to share


def gradients(model: GenerativeModel, name: str, share: Share, step: int) -> tuple[dict[str, float], torch.Tensor]:
    """Losses and all gradients of one step's phases, at weights that do not move."""
    images = images_of(model.shape)[:8]
    attributes = torch.stack([torch.arange(8) % len(values) for values in ATTRIBUTES.values()], 1)
    given = given_for(name, model.shape, 0, 8)
    batch = Batch(images, torch.arange(8) % 3, attributes, given).part(share)
    assert isinstance(model, Trains)
    values, found = {}, []
    model.train()
    for number, phase in enumerate(model.phases()):
        parameters = phase_parameters(model, phase)
        seed_dropout(number, CPU)
        context = Context(step, 0.3, torch.Generator().manual_seed(number), CPU, share)
        with without_gradients(others(model, parameters)), share.dropping():
            losses = phase.loss(batch, context)
            for parameter in parameters:
                parameter.grad = None
            losses.total.backward()
        values[phase.name] = float(losses.total.detach())
        found += [parameter.grad.flatten().clone() for parameter in parameters if parameter.grad is not None]
    return values, torch.cat(found)


@pytest.mark.parametrize("name", sorted(set(trainable()) - COUPLED))
def test_the_mean_of_the_shares_losses_and_gradients_is_the_whole_batchs(name: str) -> None:
    shape = SHAPES["rgb" if registry.load(name).model.task == "domain_translation" else "digits"]
    model = build(name, shape)
    gradients(model, name, Share(), 0)  # flows take their first weights from it
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # away from layers that begin at zero
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    whole, whole_gradient = gradients(model, name, Share(), 1)
    parts = []
    for rank in range(2):
        model.load_state_dict(before)  # what a loss remembers is taken back
        parts.append(gradients(model, name, Share(rank, 2, 4), 1))
    for phase, value in whole.items():
        assert (parts[0][0][phase] + parts[1][0][phase]) / 2 == pytest.approx(value, rel=1e-4, abs=1e-5)
    difference = (parts[0][1] + parts[1][1]) / 2 - whole_gradient
    assert float(difference.norm() / whole_gradient.norm()) < 2e-4
    assert float((parts[0][1] - whole_gradient).norm() / whole_gradient.norm()) > 1e-2, "the shares differ"


def test_the_ranks_rows_are_the_whole_batchs_in_blocks() -> None:
    whole = torch.arange(24.0).view(12, 2)  # two blocks of six images
    parts = [Share(rank, 3, 2).part(whole, 4) for rank in range(3)]
    assert [part[:, 0].tolist() for part in parts] == [[0, 2, 12, 14], [4, 6, 16, 18], [8, 10, 20, 22]]
    share = Share(1, 3, 2)
    assert share.whole((4, 5)) == (12, 5)
    assert share.whole(()) == ()
    assert share.whole((3,)) == (3,), "no image's own"
    strata = [Share(rank, 3, 2).strata(2, lambda n: torch.full((n,), 0.5)) for rank in range(3)]
    torch.testing.assert_close(torch.cat(strata), (torch.arange(6) + 0.5) / 6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("drop", [F.dropout, F.dropout2d])
def test_dropout_of_the_shares_is_that_of_the_whole_batch(drop: Any, layout: torch.memory_format) -> None:
    x = torch.rand(6, 5, 4, 3).contiguous(memory_format=layout) + 1
    torch.manual_seed(0)
    whole = drop(x, 0.4, True)
    assert 0.2 < float((whole == 0).float().mean()) < 0.6
    for rank in range(3):
        share = Share(rank, 3, 2)
        torch.manual_seed(0)
        with share.dropping():
            torch.testing.assert_close(drop(x[2 * rank : 2 * rank + 2], 0.4, True), whole[2 * rank : 2 * rank + 2])
            assert torch.equal(drop(x[:2], 0.4, False), x[:2])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What two gloo processes made, one of their trainings begun here by one process."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("ranks")
    train(a_trainer(folder / "ended"), STEPS // 2)
    script = [str(ROOT / "tests" / "two_ranks.py"), str(folder)]
    done = python(folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / "told.json").read_text())


def assert_same(found: dict[str, Any], run: Any) -> None:
    assert len(found["curve"]) == len(run.state.curve) == STEPS
    for theirs, ours in zip(found["curve"], run.state.curve, strict=True):
        assert theirs.keys() == ours.keys()
        for name in ours.keys() - {"seconds"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-12), (ours["images"], name)
    for key, tensor in run.model.state_dict().items():
        torch.testing.assert_close(
            torch.tensor(found["weights"][key], dtype=tensor.dtype), tensor, rtol=1e-11, atol=1e-13
        )
    assert found["best_images"] == run.state.best_images


def test_two_processes_have_the_curve_and_the_weights_of_one(told: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    alone = train(a_trainer(tmp_path))
    assert alone.state.curve[0]["net/loss"] > alone.state.curve[-2]["net/loss"] + 0.05, "the premise: it learns"
    assert told[1]["whole"]["processes"] == 2
    assert_same(told[1]["whole"], alone)


def test_a_training_begun_by_two_is_ended_by_one_and_the_other_way_round(
    told: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    alone = train(a_trainer(tmp_path))
    ended = train(a_trainer(told[0] / "begun"))
    assert ended.state.resumed == 1
    assert ended.state.processes == 2
    weights = {key: tensor.tolist() for key, tensor in ended.model.state_dict().items()}
    assert_same({"curve": ended.state.curve, "weights": weights, "best_images": ended.state.best_images}, alone)
    assert told[1]["ended"]["processes"] == 2
    assert_same(told[1]["ended"], alone)


@pytest.mark.slow
def test_the_command_trains_by_all_processes_what_the_next_run_measures(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    models = "".join(f'[[models]]\nmodel = "{name}"\nimages = 640\n' for name in ("made", "dcgan"))
    (tmp_path / "m.toml").write_text(f'title = "m"\n[measure]\nsamples = 50\nlatency_s = 0.05\n{models}')
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for more, code in (((), 1), (("--model", "made"), 0)):
        done = python(tmp_path, *torchrun, "-m", "bench", "train", "m.toml", *more)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("note: without Dcgan by 2 processes: batch norm" in done.stdout) == bool(code)
    assert "3 trained before, 0 to train, each by 2 processes" in done.stdout
    run = python(tmp_path, "-m", "bench", "run", "m.toml", "--model", "made")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 to train, 3 trained before and to measure" in run.stdout
    lines = python(tmp_path, "-m", "bench", "show", "results/m", "--json").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    made = next(record for record in records if record["cell"]["model"] == "made" and record["cell"]["draw"] is None)
    speed = next(m for m in made["measured"] if m["metric"] == "training_s")
    assert speed["protocol"]["processes"] == 2
    assert "by 2 processes together" in speed["note"]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "200"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

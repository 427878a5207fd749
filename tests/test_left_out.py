"""Models and data sets of different tasks: the cells are left out with a reason, and the rest of the matrix runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baselines import registry
from baselines.errors import UserError
from bench import api, matrix, prepare
from bench.job import Setup
from bench.left_out import fitting, possible
from bench.plan import plan

TOY = """
datasets = ["digits"]
[[models]]
model = "vae"
images = 64
[[models]]
model = "{asks}"
images = 64
"""

ASKS = [name for name in registry.names() if registry.load(name).model.task != "unconditional"]


@pytest.mark.parametrize("name", ASKS)
def test_a_conditional_model_on_plain_digits_is_left_out_with_the_tasks(name: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(TOY.format(asks=name), encoding="utf-8")
    wanted = matrix.expand(matrix.load(str(path))[1])
    kept, unfit = fitting(wanted, Setup(tmp_path, "cpu"))
    assert {item.model for item in kept} == {"vae", "real", "histogram"}
    (pair,) = unfit
    assert pair == f"{name} on digits"
    assert "the data set offers unconditional" in unfit[pair]
    told = [row for row in api.dry_run(api.Options(str(path))) if row["cell"] == pair]
    assert told[0]["state"].startswith("left out: the model's task is")


@pytest.mark.parametrize("name", ASKS)
def test_alone_it_is_an_error_that_names_the_tasks(name: str, tmp_path: Path) -> None:
    wanted = [item for item in matrix.expand(matrix.Matrix(), models=[name]) if item.model == name]
    with pytest.raises(UserError, match="the data set offers unconditional"):
        fitting(wanted, Setup(tmp_path, "cpu"))
    with pytest.raises(UserError, match="the data set offers unconditional"):
        plan(wanted, Setup(tmp_path, "cpu"))


QUICKER = """
datasets = ["digits"]
seeds = [0, 1]
[measure]
timed_seeds = 1
[[models]]
model = "ddpm"
images = 64
config = { timesteps = 20 }
draws = [
    { sampler = "ddim", steps = [5] },
    { sampler = "ddim", steps = [5], options = { graph = true } },
    { sampler = "ddim", steps = [5], options = { precision = "bf16", graph = [true, false] } },
]
"""


def test_draws_that_need_a_gpu_are_left_out_without_one_and_the_rest_is_timed_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "quicker.toml"
    path.write_text(QUICKER, encoding="utf-8")
    rows = {row["cell"]: row["state"] for row in api.dry_run(api.Options(str(path)))}
    left = {cell for cell, state in rows.items() if state.startswith("left out: options.graph: CUDA graphs need a GPU")}
    assert left == {"ddpm, ddim S=5 eta=0 graph=True", "ddpm, ddim S=5 eta=0 graph=True precision=bf16"}
    drawn = [cell for cell in rows if cell.startswith("ddpm-digits seed 1, ")]
    assert drawn == [
        "ddpm-digits seed 1, ddim S=5 eta=0",
        "ddpm-digits seed 1, ddim S=5 eta=0 graph=False precision=bf16",
    ]
    ready = prepare.prepare(api.Options(str(path), seeds=[1]), "cpu", 1)
    alone = plan([item for item in ready.selected if item.model == "ddpm"], ready.setup, ready.everything)
    assert [draw.timed for draw in alone[0].draws] == [False, False], "seed 0 is the timed one, selected or not"


def test_with_a_gpu_that_the_run_does_not_use_graphs_are_left_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    path = tmp_path / "quicker.toml"
    path.write_text(QUICKER, encoding="utf-8")
    wanted = matrix.expand(matrix.load(str(path))[1])
    _, lacking = possible(wanted, Setup(tmp_path, "cpu"))
    assert set(lacking.values()) == {"options.graph: CUDA graphs need a GPU, and this run is on the CPU"}
    assert possible(wanted, Setup(tmp_path, "cuda")) == (wanted, {})


def test_an_option_that_the_model_has_not_is_no_matter_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for line in (
        'model = "vae"\ndraws = [{ options = { graph = true } }]',
        'model = "ddpm"\ndraws = [{ sampler = "ddim", steps = [5], options = { graph = true, precision = "fp8" } }]',
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(f"[[models]]\n{line}\n", encoding="utf-8")
        wanted = matrix.expand(matrix.load(str(path))[1])
        kept, lacking = possible(wanted, Setup(tmp_path, "cpu"))
        assert (kept, lacking) == (wanted, {})
        with pytest.raises(UserError, match=r"graph|fp8"):
            plan(kept, Setup(tmp_path, "cpu"))

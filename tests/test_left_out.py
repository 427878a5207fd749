"""Models and data sets of different tasks: the cells are left out with a reason, and the rest of the matrix runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines import registry
from baselines.errors import UserError
from bench import api, matrix
from bench.job import Setup
from bench.left_out import fitting
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

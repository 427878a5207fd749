"""Draws with an N of their own, options given as lists, and matrices whose data set is not on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines.config import config_values
from baselines.errors import MissingDataError, UserError
from baselines.types import Draw
from bench import api, keys, matrix, plan, store
from bench.job import Setup
from bench.record import Record

TEXT = """
title = "sizes"
datasets = ["digits", "mnist"]
[measure]
samples = 90
latency_s = 0.02
[[models]]
model = "corrupted"
draws = [
    {},
    { samples = [20, 40] },
    { options = { kind = "blur", level = [0.5, 1.0] } },
]
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(TEXT)
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "mine.toml")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("baselines.data.mnist._fetch", refuse)
    plan.open_dataset.cache_clear()


def test_lists_in_samples_and_options_multiply(mine: str) -> None:
    wanted = matrix.expand(matrix.load(mine)[1])[0]
    blurs = [Draw(options={"kind": "blur", "level": level}) for level in (0.5, 1.0)]
    assert list(zip(wanted.draws, wanted.samples, strict=True)) == [
        (Draw(), None),
        (Draw(), 20),
        (Draw(), 40),
        *((draw, None) for draw in blurs),
    ]


@pytest.mark.parametrize("value", ["[0]", "['many']", "5"])
def test_a_wrong_n_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f"[[models]]\nmodel = 'vae'\ndraws = [{{ samples = {value} }}]")
    with pytest.raises(UserError, match=r"models\.0\.draws\.0\.samples"):
        matrix.load(str(path))


def test_n_makes_cells_of_their_own_and_leaves_the_keys_of_other_draws_as_they_were(mine: str, tmp_path: Path) -> None:
    wanted = matrix.expand(matrix.load(mine)[1], models=["corrupted"], datasets=["digits"])[:1]
    (training,) = plan.plan(wanted, Setup(tmp_path, "cpu", samples=90, latency_s=0.02))
    jobs = training.draws
    assert [job.samples for job in jobs] == [90, 20, 40, 90, 90]
    assert [job.cell.samples for job in jobs] == [None, 20, 40, None, None]
    assert len({job.key for job in jobs}) == len({job.cell.label() for job in jobs}) == 5
    measured = {"samples": 90, "batch": 500, "threads": 1, "latency_s": 0.02}
    assert jobs[0].key == keys.cell_key(jobs[0].train_key, config_values(Draw()), measured)
    assert jobs[1].key == keys.cell_key(jobs[1].train_key, config_values(Draw()), measured | {"samples": 20})


def test_a_record_keeps_its_n_and_older_lines_have_none(mine: str, tmp_path: Path) -> None:
    wanted = matrix.expand(matrix.load(mine)[1], models=["corrupted"], datasets=["digits"])[:1]
    cell = plan.plan(wanted, Setup(tmp_path, "cpu"))[0].draws[1].cell
    record = Record("key", "train", "ok", cell)
    plain = record.as_json()
    assert Record.from_json(plain) == record
    assert store.table([record])["draw"].tolist() == ["native N=20"]
    older = {**plain, "cell": {k: v for k, v in plain["cell"].items() if k != "samples"}}
    assert Record.from_json(older).cell.samples is None


@pytest.mark.usefixtures("no_network")
def test_a_data_set_that_is_not_here_is_left_out_and_told(mine: str, tmp_path: Path) -> None:
    options = api.Options(matrix=mine, results=tmp_path / "results", data_dir=tmp_path / "empty")
    rows = api.dry_run(options)
    assert rows[0]["cell"] == "all of mnist"
    assert "no network in tests" in rows[0]["state"]
    assert any("digits" in row["cell"] for row in rows)
    assert not any("mnist" in row["cell"] for row in rows[1:])
    with pytest.raises(MissingDataError, match="no network in tests"):
        api.dry_run(api.Options(matrix=mine, datasets=["mnist", "digits"], data_dir=tmp_path / "empty"))
    (tmp_path / "only.toml").write_text(TEXT.replace('["digits", "mnist"]', '["mnist"]'))
    with pytest.raises(MissingDataError, match="no network in tests"):
        api.dry_run(api.Options(matrix=str(tmp_path / "only.toml"), data_dir=tmp_path / "empty"))


@pytest.mark.usefixtures("no_network")
def test_a_run_without_it_measures_the_rest_with_each_draws_n(mine: str, tmp_path: Path) -> None:
    folder, data = tmp_path / "results", tmp_path / "empty"
    frame = api.run(mine, results=folder, data_dir=data, models="corrupted", jobs=1)
    of_n = frame[(frame.model == "corrupted") & (frame.metric == "precision[digits-cnn]")].set_index("draw").n
    assert of_n.to_dict() == {
        "native": 90,
        "native N=20": 20,
        "native N=40": 40,
        "native kind=blur level=0.5": 90,
        "native kind=blur level=1.0": 90,
    }
    assert store.read_run(folder)["missing"] == ["mnist"]

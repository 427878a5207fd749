"""`trilemma show`: conditions pick draws, and what they pick comes out as a table, lines or a file."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import query, store
from bench.record import Cell, Measurement, Record
from tests.command import trilemma_here

FD = "fd[digits-cnn]"


def record(model: str, seed: int, steps: int | None, value: float, lr: float = 0.1) -> Record:
    draw = None if steps is None else Draw("ddim", steps)
    cell = Cell(model, "digits", Budget(images=1000), seed, {"lr": lr, "training": {"batch_size": 32}}, draw)
    metric = Measurement("bits_per_dim[vlb]" if draw is None else FD, value, "", "lower", 10, "draw")
    train_key = f"{model}{seed}"
    return Record(f"{train_key} {steps}", train_key, "ok", cell, (metric,))


RECORDS = [
    *(record("ddpm", seed, steps, value) for seed in (0, 1) for steps, value in ((None, 2.5), (5, 9.0), (20, 3.0))),
    *(record("vae", seed, steps, value, lr=0.2) for seed in (0, 1) for steps, value in ((None, 1.9), (1, 12.0))),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for one in RECORDS:
        store.append(tmp_path / "results", one)
    return tmp_path


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ["ddpm0 20", "ddpm0 5", "ddpm1 20", "ddpm1 5", "vae0 1", "vae1 1"]),
        (["model=ddpm", "seed=0"], ["ddpm0 20", "ddpm0 5"]),
        (["model!=ddpm"], ["vae0 1", "vae1 1"]),
        (["seed = 1", f"{FD} < 10"], ["ddpm1 20", "ddpm1 5"]),
        ([f"{FD}>=9"], ["ddpm0 5", "ddpm1 5", "vae0 1", "vae1 1"]),
        (["steps=5,20", "seed=0"], ["ddpm0 20", "ddpm0 5"]),
        (["bits_per_dim[vlb]<=1.9"], ["vae0 1", "vae1 1"]),
        (["draw~S=2"], ["ddpm0 20", "ddpm1 20"]),
        (["config.lr=0.2", "seed=1"], ["vae1 1"]),
        (["config.training.batch_size>32"], []),
        (["clip=true", "model=vae"], ["vae0 1", "vae1 1"]),
        (["clip=True", "model=vae"], ["vae0 1", "vae1 1"]),
        (["clip!=true"], []),
        (["clip=false"], []),
    ],
)
def test_conditions_pick_draws_by_cell_metric_and_config(conditions: list[str], expected: list[str]) -> None:
    answer = query.ask(RECORDS, [query.parse(text) for text in conditions])
    assert sorted(answer.rows["key"]) == expected
    trained = {key.split()[0] for key in expected}
    assert {r.key for r in answer.records} == {*expected, *(f"{key} None" for key in trained)}, "with their trainings"


def test_a_row_without_a_value_meets_no_comparison() -> None:
    bare = replace(record("ddpm", 0, 7, 1.0), measured=())
    for text in (f"{FD}<100", f"{FD}>=0", f"{FD}=1", "steps=", f"{FD}~1"):
        assert "ddpm0 7" not in set(query.ask([*RECORDS, bare], [query.parse(text)]).rows["key"]), text


@pytest.mark.parametrize("text", ["model", "", "=3", "model<x"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--where.*expected"):
        query.parse(text)


def test_unknown_columns_and_words_compared_as_numbers_are_refused(folder: Path) -> None:
    for arguments, message in (
        (["--where", "modl=ddpm"], "did you mean 'model'"),
        (["--where", "nonsense=1"], f"such as bits_per_dim[vlb], {FD}"),
        (["--where", "model<3"], "model holds no numbers"),
        (["--columns", "sed"], "did you mean 'seed'"),
        (["--format", "xml"], "expected one of table, csv, json, parquet, got 'xml'"),
        (["--format", "parquet"], "expected --out FILE"),
        (["--csv", "--columns", "model"], "--columns is for the table"),
    ):
        done = trilemma_here(folder, "show", "results", *arguments)
        assert done.returncode == 2
        assert message in done.stderr


def test_the_table_shows_the_picked_draws_and_chosen_columns(folder: Path) -> None:
    done = trilemma_here(folder, "show", "results", "--where", f"{FD}<5", "--columns", f"model,seed,{FD},config.lr")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0] == ["model", "seed", FD, "config.lr"]
    assert lines[2:] == [["ddpm", "0", "3", "0.1"], ["ddpm", "1", "3", "0.1"]]
    assert "2 draws of 4 records" in done.stderr
    assert trilemma_here(folder, "show", "results", "--where", f"{FD}<5", "--out", "x.txt").stdout == ""
    written = [line.split() for line in (folder / "x.txt").read_text().splitlines() if line.strip()]
    assert written[2:][0] == ["ddpm", "digits", "0", "ddim", "S=20", "eta=0", "3", "2.5"]
    unasked = trilemma_here(folder, "show", "results", "--where", "seed=0").stdout
    assert unasked.split()[:6] == ["model", "dataset", "seed", "draw", FD, "bits_per_dim[vlb]"]


def test_csv_json_and_files_hold_the_picked_records_alone(folder: Path) -> None:
    picked = ("show", "results", "--where", "model=vae")
    rows = list(csv.DictReader(io.StringIO(trilemma_here(folder, *picked, "--format", "csv").stdout)))
    assert {row["model"] for row in rows} == {"vae"}
    assert len(rows) == 4
    lines = trilemma_here(folder, *picked, "--json").stdout.splitlines()
    assert [Record.from_json(json.loads(line)) for line in lines] == [r for r in RECORDS if r.cell.model == "vae"]
    assert trilemma_here(folder, *picked, "--csv", "--out", "x.csv").stdout == ""
    assert (folder / "x.csv").read_text().startswith("key,train_key")
    done = trilemma_here(folder, *picked, "--csv", "--out", "no/such/x.csv")
    assert done.returncode == 2
    assert "no/such/x.csv: cannot be written" in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow (extra parquet) is not installed")
def test_parquet_holds_what_the_frame_holds(folder: Path) -> None:
    done = trilemma_here(folder, "show", "results", "--format", "parquet", "--out", "x.parquet")
    assert done.returncode == 0, done.stderr
    back = pd.read_parquet(folder / "x.parquet")
    expected = store.frame(store.load(folder / "results").records)
    pd.testing.assert_frame_equal(back, expected, check_dtype=False)


def test_parquet_without_pyarrow_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    done = trilemma_here(folder, "show", "results", "--format", "parquet", "--out", "x.parquet")
    assert done.returncode == 2
    assert "pip install 'trilemma-bench[parquet]'" in done.stderr

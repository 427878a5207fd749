"""The record store: what is written is read back, whatever a killed writer left behind."""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import migrations, store
from bench.record import Artifact, Cell, Measurement, Record


def make(key: str, value: float = 1.0, draw: Draw | None = None, train_key: str = "t", **changes: object) -> Record:
    scope = "train" if draw is None else "draw"
    metric = "bits_per_dim[vlb]" if draw is None else "fd[digits-cnn]"
    kind = "upper_bound" if draw is None else None
    measured = Measurement(metric, value, "", "lower", 10, scope, value - 0.5, value + 0.5, kind, {"n": 10})
    cell = Cell("ddpm", "digits", Budget(images=1000), 0, {"lr": 0.1, "name": "é <"}, draw)
    record = Record(key, train_key, "ok", cell, (measured,), {"kid": "too few"}, (Artifact("grid", "a.npz", "0"),))
    return replace(record, **changes)


def changed(plain: Any, place: str, value: object) -> Any:
    """A record's line with another value at a dotted place."""
    *above, last = (int(part) if part.isdecimal() else part for part in place.split("."))
    inner = functools.reduce(lambda found, part: found[part], above, plain)
    inner[last] = value
    return plain


def lines(folder: Path) -> int:
    return sum(len(shard.read_text().splitlines()) for shard in (folder / "records").glob("*.jsonl"))


def _append_many(folder: Path, first: int) -> None:
    for i in range(first, first + 20):
        store.append(folder, make(f"k{i}"))


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = make("k", draw=Draw("ddim", 20, 0.5, options={"order": 2}))
    store.append(tmp_path, record)
    assert store.load(tmp_path) == store.Loaded((record,), ())


def test_the_last_line_of_a_key_wins_within_a_shard_and_across_writers(tmp_path: Path) -> None:
    store.append(tmp_path, make("a", 1.0))
    store.append(tmp_path, make("b", 2.0))
    store.append(tmp_path, make("a", 3.0))
    context = multiprocessing.get_context("fork")
    later = context.Process(target=store.append, args=(tmp_path, make("b", 4.0)))
    later.start()
    later.join()
    assert {r.key: r.measured[0].value for r in store.load(tmp_path).records} == {"a": 3.0, "b": 4.0}
    assert len(list((tmp_path / "records").iterdir())) == 2  # the fork has a shard of its own


def test_writers_side_by_side_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path, 20 * i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    loaded = store.load(tmp_path)
    assert {r.key for r in loaded.records} == {f"k{i}" for i in range(80)}
    assert loaded.problems == ()


def test_a_truncated_last_line_is_told_and_does_not_swallow_the_next_record(tmp_path: Path) -> None:
    shard = store.append(tmp_path, make("a"))
    store.append(tmp_path, make("killed"))
    os.truncate(shard, shard.stat().st_size - 30)
    store.append(tmp_path, make("b"))
    loaded = store.load(tmp_path)
    assert [r.key for r in loaded.records] == ["a", "b"]
    assert len(loaded.problems) == 1
    assert f"{shard.name}:2" in loaded.problems[0]


def test_finite_numbers_that_add_up_to_infinity_are_numbers(tmp_path: Path) -> None:
    record = make("x", value=1.5e308)
    record = replace(record, measured=(*record.measured, *record.measured))
    store.append(tmp_path, record)
    assert store.load(tmp_path) == store.Loaded((record,), ())


@pytest.mark.parametrize(
    "garbage",
    [
        b"{",
        b"[1]",
        b"\xff\xfe",
        b'{"schema": 1, "key": "x"}',
        json.dumps({**make("x").as_json(), "status": "fine"}).encode(),
        json.dumps(make("x", math.nan).as_json()).encode(),
        json.dumps(make("x", value=1.0).as_json()).replace('"value": 1.0', '"value": "1"').encode(),
        json.dumps(make("x", value=1.0).as_json()).replace('"value": 1.0', '"value": 1e999').encode(),
        json.dumps(make("x", value=1.0).as_json()).replace('"value": 1.0', f'"value": {10**400}').encode(),
        json.dumps(make("x", value=1.0).as_json()).replace('"low": 0.5', '"low": "2"').encode(),
        json.dumps({**make("x").as_json(), "surprise": 1}).encode(),
        b"[" * 100_000,
        *(
            json.dumps(changed(make("x", draw=Draw("ddim", 5)).as_json(), place, wrong)).encode()
            for place, wrong in (
                ("key", ["x"]),
                ("train_key", None),
                ("error", 1),
                ("skipped.kid", []),
                ("metric_keys", None),
                ("cell.model", ["ddpm"]),
                ("cell.dataset", 5),
                ("cell.seed", None),
                ("cell.seed", True),
                ("cell.config", "x"),
                ("cell.budget.images", -1),
                ("cell.draw.steps", "5"),
                ("cell.draw.sampler", None),
                ("cell.draw.options", [1]),
                ("measured.0.metric", 3),
                ("measured.0.low", "1"),
                ("measured.0.high", {}),
                ("measured.0.kind", ["exact"]),
                ("artifacts.0.path", None),
            )
        ),
    ],
)
def test_a_line_that_is_no_record_is_skipped_and_told(tmp_path: Path, garbage: bytes) -> None:
    shard = store.append(tmp_path, make("a"))
    shard.write_bytes(shard.read_bytes() + garbage + b"\n\n")
    store.append(tmp_path, make("b"))
    loaded = store.load(tmp_path)
    assert [r.key for r in loaded.records] == ["a", "b"]
    assert len(loaded.problems) == 1
    assert re.search(r"0001-[0-9a-f]{8}\.jsonl:2", loaded.problems[0])


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    store.append(tmp_path, replace(make("a"), schema=99))
    with pytest.raises(UserError, match=r"0001-[0-9a-f]{8}\.jsonl:1.*99 is newer"):
        store.load(tmp_path)


def test_a_record_of_an_older_schema_is_migrated_step_by_step_and_one_without_a_way_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(tmp_path, make("a", 2.0))  # as this version writes it, which the next two will call old
    old = store.SCHEMA

    def rename(plain: dict[str, object]) -> dict[str, object]:
        return {("why_not" if name == "skipped" else name): value for name, value in plain.items()}

    def name_back(plain: dict[str, object]) -> dict[str, object]:
        assert plain["schema"] == old + 1
        told = {name: f"{reason}!" for name, reason in plain["why_not"].items()}  # type: ignore[attr-defined]
        return {**{name: value for name, value in plain.items() if name != "why_not"}, "skipped": told}

    for module in (store, migrations):
        monkeypatch.setattr(module, "SCHEMA", old + 2)
    monkeypatch.setattr(migrations, "MIGRATIONS", {old: rename, old + 1: name_back})
    loaded = store.load(tmp_path)
    assert loaded.problems == ()
    assert loaded.records == (make("a", 2.0, skipped={"kid": "too few!"}, schema=old + 2),)
    monkeypatch.setattr(migrations, "MIGRATIONS", {})
    loaded = store.load(tmp_path)
    assert loaded.records == ()
    assert f"schema {old} is older than any that this version reads" in loaded.problems[0]


def by_another_process(folder: Path, *records: Record) -> None:
    """Written as a run of its own: in a shard of its own."""
    context = multiprocessing.get_context("fork")
    for item in records:
        writer = context.Process(target=store.append, args=(folder, item))
        writer.start()
        writer.join()
        assert writer.exitcode == 0


def at(hour: int) -> dict[str, str]:
    return {"time": f"2026-01-01T{hour:02d}:00:00+00:00"}


def test_folders_of_two_machines_are_merged_by_copying_files_and_the_newest_of_a_cell_wins(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    by_another_process(one, make("a", 1.0, provenance=at(1)), make("both", 2.0, provenance=at(9)))
    by_another_process(two, make("b", 3.0, provenance=at(1)), make("both", 4.0, provenance=at(8)))
    by_another_process(two, make("later", 5.0, provenance=at(2)))
    shutil.copytree(two / "records", one / "records", dirs_exist_ok=True)
    assert len(list((one / "records").iterdir())) == 5, "no file took another's place"
    loaded = store.load(one)
    assert {r.key: r.measured[0].value for r in loaded.records} == {"a": 1.0, "b": 3.0, "both": 2.0, "later": 5.0}
    assert len(loaded.problems) == 1
    assert "1 cells were measured more than once, and the newest record of each is taken" in loaded.problems[0]


def test_on_one_machine_the_later_run_wins_even_if_the_clock_was_set_back(tmp_path: Path) -> None:
    by_another_process(tmp_path, make("a", 1.0, provenance=at(9)), make("a", 2.0, provenance=at(1)))
    loaded = store.load(tmp_path)
    assert [r.measured[0].value for r in loaded.records] == [2.0]
    assert loaded.problems == ()


def test_shards_named_by_a_number_alone_are_read_before_later_ones(tmp_path: Path) -> None:
    shard = store.append(tmp_path, make("a", 1.0))
    shard.rename(shard.with_name("0001.jsonl"))  # as versions before this one called them
    by_another_process(tmp_path, make("a", 2.0))
    assert sorted(path.name[:4] for path in (tmp_path / "records").iterdir()) == ["0001", "0002"]
    assert [r.measured[0].value for r in store.load(tmp_path).records] == [2.0]


def test_a_line_without_what_has_a_default_is_a_record(tmp_path: Path) -> None:
    shard = store.append(tmp_path, make("a"))
    plain = make("b").as_json()
    del plain["provenance"], plain["cell"]["config"], plain["measured"][0]["protocol"]
    shard.write_text(json.dumps(plain) + "\n")
    loaded = store.load(tmp_path)
    assert loaded.problems == ()
    assert (loaded.records[0].provenance, loaded.records[0].cell.config, loaded.records[0].measured[0].protocol) == (
        {},
        {},
        {},
    )


def test_equal_protocols_of_many_records_are_one_in_memory(tmp_path: Path) -> None:
    for i in range(3):
        store.append(tmp_path, make(f"k{i}"))
    protocols = {id(r.measured[0].protocol) for r in store.load(tmp_path).records}
    assert len(protocols) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_never_written(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match=r"bits_per_dim\[vlb\]"):
        store.append(tmp_path, make("a", bad))
    with pytest.raises(ValueError, match="finite"):
        store.append(tmp_path, make("a", provenance={"deep": [{"x": bad}]}))
    assert not (tmp_path / "records").exists()


def test_a_missing_folder_is_an_error_and_an_empty_one_has_no_records(tmp_path: Path) -> None:
    assert store.load(tmp_path) == store.Loaded((), ())
    with pytest.raises(UserError, match="not a folder"):
        store.load(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"):
        store.append(tmp_path, make("a"))
    with pytest.raises(UserError, match="cannot write"):
        store.write_run(tmp_path / "records", {"matrix": "m"})


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        store.append(tmp_path, make("a"))


def test_run_json_is_replaced_whole_and_read_back(tmp_path: Path) -> None:
    assert store.read_run(tmp_path) == {}
    store.write_run(tmp_path, {"matrix": "one", "keys": ["a"]})
    store.write_run(tmp_path, {"matrix": "two", "keys": []})
    assert store.read_run(tmp_path) == {"schema": 1, "matrix": "two", "keys": []}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]  # no passing file stays


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "run.json: not what a run writes"),
        ("[]", "object"),
        ('{"schema": 99}', "newer"),
        ('{"schema": "1"}', "expected an integer, got '1'"),
        ("[" * 100_000, "recursion"),
        ('{"keys": [["a"]]}', r"keys: expected a list of words, got \[\['a'\]\]"),
        ('{"missing": "mnist"}', "missing: expected a list of words"),
        ('{"families": ["vae"]}', "families: expected an object"),
    ],
)
def test_a_damaged_run_json_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=told):
        store.read_run(tmp_path)


def test_frame_has_a_row_for_each_measurement_with_its_draw() -> None:
    records = [make("t"), make("d", 2.0, Draw("ddim", 20, 0.5))]
    frame = store.frame(records)
    assert list(frame["metric"]) == ["bits_per_dim[vlb]", "fd[digits-cnn]"]
    drawn = frame.iloc[1]
    assert (drawn["sampler"], drawn["steps"], drawn["eta"], drawn["draw"]) == ("ddim", 20, 0.5, "ddim S=20 eta=0.5")
    assert (drawn["value"], drawn["low"], drawn["high"]) == (2.0, 1.5, 2.5)
    assert json.loads(drawn["protocol"]) == {"n": 10}
    assert len(store.frame([])) == 0
    assert "metric" in store.frame([]).columns


def test_table_joins_the_numbers_of_training_to_every_draw_of_the_same_checkpoint() -> None:
    records = [
        make("t", 3.0),
        make("d5", 9.0, Draw("ddim", 5)),
        make("d20", 2.0, Draw("ddim", 20)),
        make("other", 7.0, train_key="u"),  # trained, but nothing drawn from it
    ]
    table = store.table(records).set_index("key")
    assert set(table.index) == {"d5", "d20", "other"}
    assert list(table.loc[["d5", "d20", "other"], "bits_per_dim[vlb]"]) == [3.0, 3.0, 7.0]
    assert list(table.loc[["d5", "d20"], "fd[digits-cnn]"]) == [9.0, 2.0]
    assert math.isnan(table.loc["other", "fd[digits-cnn]"])
    assert set(table["bits_per_dim[vlb] kind"]) == {"upper_bound"}


def test_half_a_surrogate_pair_in_a_name_or_an_error_is_kept(tmp_path: Path) -> None:
    odd = make("a", error="no such file: n\udcff")
    store.append(tmp_path, odd)
    assert store.load(tmp_path).records == (odd,)
    store.write_run(tmp_path, {"title": "n\udcff"})
    assert store.read_run(tmp_path)["title"] == "n\udcff"

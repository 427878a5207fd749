"""The file of races: what is written is read again, and what cannot be read is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from baselines.errors import UserError
from bench.peers import book
from tests.peers.made_up import race, row

AGREEMENT = book.Agreement(measure="difference", found=None, allowed=0.1, expected="a reason", holds=False)
FULL = race(rows=(row(low=1.5, high=2.5, agreement=AGREEMENT), row("broken", ratio=None, error="ValueError: no")))


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "peers.jsonl"
    book.save(path, [FULL, race("Other work")])
    assert book.load(path) == [FULL, race("Other work")]
    assert [p.name for p in path.parent.iterdir()] == ["peers.jsonl"], "and nothing is left beside"


def test_a_missing_file_holds_nothing(tmp_path: Path) -> None:
    assert book.load(tmp_path / "peers.jsonl") == []


def test_a_new_race_takes_the_place_of_the_old_one_of_its_work() -> None:
    old = [race("A"), race("B"), race("C")]
    new = [race("D"), race("B", threads=4)]
    made = book.merged(old, new)
    assert [(r.work, r.threads) for r in made] == [("A", 1), ("B", 4), ("C", 1), ("D", 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"work": "A"}',
        json.dumps({**json.loads(FULL.model_dump_json(by_alias=True)), "extra": 1}).encode(),
        FULL.model_dump_json(by_alias=True).replace("2.0", "Infinity").encode(),
        FULL.model_dump_json(by_alias=True).replace("2.0", "1e308").encode(),
        json.dumps({**json.loads(FULL.model_dump_json(by_alias=True)), "seconds": []}).encode(),
        json.dumps({**json.loads(FULL.model_dump_json(by_alias=True)), "peak_bytes": 10**400}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "peers.jsonl"
    path.write_bytes(race().model_dump_json(by_alias=True).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(UserError, match=r"peers\.jsonl:3: expected the record of a race"):
        book.load(path)


def test_a_newer_programs_record_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "peers.jsonl"
    plain = {**json.loads(race().model_dump_json(by_alias=True)), "schema": book.SCHEMA + 1, "new": 1}
    path.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(UserError, match=r":1: expected schema 1 or older, got 2: update trilemma"):
        book.load(path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        book.save(tmp_path / "file" / "peers.jsonl", [race()])


def test_a_folder_and_a_device_are_no_place_for_records_and_that_is_told_before_anything_is_raced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path()):
        with pytest.raises(UserError, match="expected a file to write, got a folder"):
            book.check_writable(folder)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="expected a file to write, got a device"):
        book.check_writable(tmp_path / "pipe")
    book.check_writable(tmp_path / "new" / "peers.jsonl")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"low": 1.1, "high": 3.0}, "faster"),
        ({"ratio": 0.8, "low": 0.5, "high": 0.9}, "slower"),
        ({"ratio": 0.8, "low": 0.5, "high": 1.1}, "even"),
        ({}, "unclear"),
        ({"ratio": None, "error": "no"}, "failed"),
    ],
)
def test_the_interval_says_who_is_faster(given: dict[str, object], verdict: str) -> None:
    assert row(**given).verdict == verdict


def test_a_row_has_a_ratio_or_an_error_and_both_ends_or_none() -> None:
    with pytest.raises(ValidationError, match="either a ratio or an error"):
        row(ratio=None)
    with pytest.raises(ValidationError, match="either a ratio or an error"):
        row(error="no")
    with pytest.raises(ValidationError, match="both ends"):
        row(low=1.0)

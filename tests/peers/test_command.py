"""`python -m bench.peers`: what is raced, what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.peers import __main__ as command
from bench.peers import book, contest
from tests.peers.made_up import contender, entry

MACHINE = {"cpu": "made up"}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = (
        entry("First"),
        entry("Second"),
        entry("Needy", needs=("no_such_module",)),
        entry("Slow", long=True),
    )
    monkeypatch.setattr(contest, "entries", lambda: iter(made))
    monkeypatch.setattr(command.provenance, "collect", lambda: MACHINE)  # git takes a second each time
    return tmp_path / "peers.jsonl"


def works(out: Path) -> list[str]:
    return [race.work for race in book.load(out)]


def run(out: Path, *arguments: str) -> int:
    return command.main(["--out", str(out), "--rounds", "1", *arguments])


def test_all_that_can_be_raced_is_and_the_rest_is_told(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(out) == 0
    assert works(out) == ["First", "Second"]
    printed = capsys.readouterr().out
    assert "Needy: left out, no_such_module is not installed" in printed
    assert "Slow: left out, it takes long: --long" in printed
    (race,) = [race for race in book.load(out) if race.work == "First"]
    assert race.provenance == MACHINE


def test_a_library_that_is_not_installed_is_named(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = contest.installed
    monkeypatch.setattr(contest, "installed", lambda module: module != "nflows" and there(module))
    assert run(out, "--list") == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith("not installed, and left out of every work: ")
    assert "nflows" in told


def test_what_takes_long_runs_when_asked_for(out: Path) -> None:
    assert run(out, "--long", "--select", "slow") == 0
    assert works(out) == ["Slow"]


def test_selected_works_replace_their_lines_and_leave_the_others(out: Path) -> None:
    run(out)
    before = out.read_text(encoding="utf-8").splitlines()
    assert run(out, "--select", "SECOND") == 0
    after = out.read_text(encoding="utf-8").splitlines()
    assert works(out) == ["First", "Second"]
    assert after[0] == before[0]


def test_missing_leaves_out_what_the_file_holds(out: Path) -> None:
    run(out, "--select", "first")
    before = out.read_text(encoding="utf-8")
    assert run(out, "--missing") == 0
    assert works(out) == ["First", "Second"]
    assert out.read_text(encoding="utf-8").startswith(before), "and its lines stay as they are"


def test_unknown_names_and_bad_numbers_are_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(out, "--select", "nothing of this kind") == 2
    assert "groups are Made up; see --list" in capsys.readouterr().err
    assert run(out, "--rounds", "0") == 2
    assert "expected 1 or more, got 0" in capsys.readouterr().err
    out.write_text("{\n", encoding="utf-8")
    assert run(out) == 2
    assert "peers.jsonl:1" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told_before_anything_is_raced(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> None:
        pytest.fail("was raced")

    monkeypatch.setattr(contest, "entries", lambda: iter([entry("First", ours=contender("ours", never))]))
    out.write_text("", encoding="utf-8")
    assert run(out / "peers.jsonl") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_contest_of_ours_that_fails_does_not_stop_the_others(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("ours is broken")

    made = entry("Broken", ours=contender("ours", broken)), entry("Sound")
    monkeypatch.setattr(contest, "entries", lambda: iter(made))
    assert run(out) == 1
    assert works(out) == ["Sound"]
    assert "Broken: failed, RuntimeError: ours is broken" in capsys.readouterr().out


def test_the_list_says_what_is_lacking_and_runs_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(out, "--list") == 0
    printed = capsys.readouterr().out
    assert "Made up: First\n" in printed
    assert "Made up: Needy  [needs no_such_module]" in printed
    assert "Made up: Slow  [--long]" in printed
    assert not out.exists()

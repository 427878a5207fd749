"""What a report and README say of other libraries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.peers import book
from bench.peers.many_records import write_many
from bench.report import write_report
from bench.report.beside import beside_of, findings, short_table
from bench.report.readme import BESIDE, END_BESIDE, with_beside
from tests.peers.made_up import race, row

ROOT = Path(__file__).parents[2]
WRONG = book.Agreement(measure="difference", found=0.3, allowed=0.1, expected="another kernel", holds=False)
RACES = [
    race(
        "Fast <b>work</b>",
        (
            row("loser", low=1.9, high=2.1),
            row("winner", ratio=0.5, low=0.4, high=0.6, agreement=WRONG),
            row("equal", ratio=1.0, low=0.9, high=1.1),
            row("broken", ratio=None, seconds=(), peak_bytes=None, error="ValueError: <script>alert(1)</script>"),
        ),
        note="a remark",
    ),
    race("Work \x1b[31mof another kind", (row("hasty"),), group="Other"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_many(tmp_path_factory.mktemp("results"), 12, samples=False)
    book.save(folder / book.FILE, RACES)
    return folder


def test_the_findings_count_who_is_faster_and_name_who_beats_us_and_who_answers_otherwise() -> None:
    counts, lost, agree, apart = findings(RACES)
    assert counts == (
        "5 comparisons of 2 pieces of work: 1 ours is faster, 1 the other is faster, 1 within noise, "
        "1 with too few rounds to tell, 1 the other failed."
    )
    assert lost.startswith("Where the other is faster: winner, Fast <b>work</b> (0.500×")
    assert agree == "0 of 1 answers that were compared agree."
    assert "another kernel" in apart


def test_code_of_our_own_is_counted_apart_from_other_libraries() -> None:
    naive = race("A third", (row("the naive loop", package="trilemma-bench", low=40, high=60, ratio=50),))
    library, own, *_ = findings([RACES[1], naive])
    assert library == "1 comparisons of 1 pieces of work: 1 with too few rounds to tell."
    assert own == "Beside code of our own (the naive loop), 1 more of 1 pieces of work: 1 ours is faster."


def test_half_of_a_surrogate_pair_can_be_drawn(tmp_path: Path) -> None:
    line = race("HALF", (row(low=1.5, high=2.5),)).model_dump_json(by_alias=True).replace("HALF", r"\ud800 work")
    (tmp_path / book.FILE).write_text(line + "\n", encoding="utf-8")
    beside, notes = beside_of(tmp_path)
    assert not notes
    assert beside is not None
    assert "? work" in str(beside.groups[0].table)


def test_the_page_and_the_markdown_tell_all_rows_and_show_text_as_text(results: Path, tmp_path: Path) -> None:
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    told = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert 'id="beside"' in page
    for name in ("loser", "winner", "equal", "broken", "hasty"):
        assert name in page
        assert name in told
    for text in (page, told):
        assert "<script>alert" not in text
        assert "<b>work</b>" not in text
        assert "\x1b" not in text
        assert "theirs is faster" in text
    assert (tmp_path / "figures" / "beside-0.svg").is_file()
    numbers = (tmp_path / "figures" / "beside-0.csv").read_text(encoding="utf-8").splitlines()
    assert len(numbers) == 1 + 3, "a head, and who could be timed"
    assert page.count("<circle") >= 4, "each dot tells its numbers"


def test_a_file_that_cannot_be_read_is_a_note_and_no_end_of_the_report(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    (folder / book.FILE).write_text("{\n", encoding="utf-8")
    page = write_report(folder, tmp_path / "report").read_text(encoding="utf-8")
    assert "peers.jsonl:1: expected the record of a race" in page
    assert 'id="beside"' not in page
    (folder / book.FILE).unlink()
    assert beside_of(folder) == (None, [])


def test_the_short_table_has_a_line_a_work_and_marks_other_answers() -> None:
    table = short_table(RACES)
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(RACES)
    assert "loser **2.00×** [1.90 – 2.10]" in lines[2]
    assert "winner 0.500× [0.400 – 0.600] ≠" in lines[2]
    assert "broken failed" in lines[2]
    assert "<script>" not in table
    assert "tox run -e peers" in short_table([])


def test_readme_shows_the_committed_races() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count(BESIDE) == text.count(END_BESIDE) == 1
    assert with_beside(text, ROOT / "results" / "reference") == text

"""What the gate prints and writes, from hostile names on; and how the self-test counts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from scipy.stats import binomtest

from baselines.errors import UserError
from bench.cli_common import write_text
from bench.gate import benchmarks, show
from bench.gate.outcome import ORDER, Outcome, Row
from bench.gate.pairs import Planted, Timed
from bench.gate.process import Job
from bench.gate.rule import Pair, Tally
from bench.gate.selftest import Rate, SelfTest, pooled, run, wilson

HOSTILE = "\x9b31m \u202e x | <script>alert(1)</script> [red] `a` \x1b[31m \x00 \ud800 ]]> & \n second"
ROWS = tuple(Row("time", f"{verdict} {HOSTILE}", verdict, "1 ms", "2 ms", "2.0×", "sure", HOSTILE) for verdict in ORDER)
OUTCOME = Outcome(f"a → b {HOSTILE}", ROWS, (HOSTILE,), 1.5)


def printed(outcome: Outcome, every: bool = True) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(show.terminal(outcome, every))
    return console.export_text()


def test_junit_is_read_by_an_xml_parser_and_counts_agree() -> None:
    outcome = Outcome("t", (*ROWS, Row("counter", "nfe", "regression", "1", "2")))
    root = ET.fromstring(show.junit(outcome).encode())
    suites = root.findall("testsuite")
    assert [s.get("name") for s in suites] == ["gate.time", "gate.counter"]
    for suite in [root, *suites]:
        cases = list(suite.iter("testcase"))
        assert int(suite.get("tests", -1)) == len(cases)
        assert int(suite.get("failures", -1)) == len(list(suite.iter("failure")))
        assert int(suite.get("errors", -1)) == len(list(suite.iter("error")))
        assert suite is root or int(suite.get("skipped", -1)) == len(list(suite.iter("skipped")))
    assert int(root.get("failures", 0)) + int(root.get("errors", 0)) == len(outcome.failing) == 5
    assert int(root.get("errors", 0)) == 1
    first = next(root.iter("testcase"))
    assert "<script>alert(1)</script>" in (first.get("name") or ""), "as text"


ATTRIBUTES = {  # of junit-10.xsd, as far as they are needed here
    "testsuites": {"name", "time", "tests", "failures", "errors", "disabled"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"name", "classname", "time", "assertions", "status"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
    "system-out": set(),
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testcase"},
    "testcase": {"failure", "error", "skipped", "system-out"},
}


def test_junit_has_the_elements_and_attributes_of_its_schema_alone() -> None:
    for outcome in (OUTCOME, Outcome("nothing", ())):
        for element in ET.fromstring(show.junit(outcome).encode()).iter():
            assert set(element.attrib) <= ATTRIBUTES[element.tag], element.tag
            assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())


def test_an_error_alone_is_status_2_and_something_worse_beside_it_status_1() -> None:
    error, same, lost = (Row("time", verdict, verdict) for verdict in ("error", "same", "lost"))
    assert Outcome("t", (same, error)).exit_code == 2
    assert Outcome("t", (same, error)).verdict.startswith("FAIL")
    assert Outcome("t", (error, lost)).exit_code == 1
    assert Outcome("t", (same, error)).accepting(["error; no GPU here"]).exit_code == 0


def test_markdown_holds_no_markup_of_others_and_one_line_a_row() -> None:
    text = show.markdown(OUTCOME, every=True)
    assert "<script" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    for line in table:
        assert len([1 for i, sign in enumerate(line) if sign == "|" and line[i - 1] != "\\"]) == 7
    assert "**regression**" in text


def test_the_terminal_shows_the_worst_first_and_no_control_characters() -> None:
    text = printed(OUTCOME)
    assert not set(text) & set("\x1b\x00\x9b\u202e")
    places = [text.index(f"\n {verdict} ") for verdict in ORDER]
    assert places == sorted(places)
    assert "FAIL: 1 regression" in text
    assert "[red]" in text, "brackets are no markup"


def test_equal_counters_are_counted_unless_all_is_asked_for() -> None:
    outcome = Outcome("t", (Row("counter", "silent one", "same"), Row("counter", "loud one", "regression")))
    assert "silent one" not in printed(outcome, every=False)
    assert "1 counter same (--all)" in printed(outcome, every=False)
    assert "silent one" in printed(outcome)
    assert "silent one" in show.junit(outcome), "JUnit has all"


def test_nothing_to_compare_is_no_failure() -> None:
    outcome = Outcome("t", (), ("no code",))
    assert outcome.exit_code == 0
    assert "no code" in printed(outcome)
    assert ET.fromstring(show.junit(outcome).encode()).get("tests", "0") == "0"


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--junit .*expected a file that can be written"):
        write_text("--junit", tmp_path / "no" / "x.xml", "")


def benchmark(name: str, rounds: list[float], **counters: float) -> dict[str, object]:
    return {"fullname": name, "stats": {"data": rounds}, "extra_info": {"counters": counters}}


def read(*held: dict[str, object]) -> benchmarks.Benchmarks:
    return benchmarks.read(json.dumps({"benchmarks": list(held)}), "x.json")


def test_pytest_benchmarks_raw_rounds_go_through_the_rule() -> None:
    slow, fast = [1.3, 1.31, 1.32, 1.33, 1.34, 1.35], [1.0, 1.01, 1.02, 1.03, 1.04, 1.05]
    base = read(benchmark("a", fast, nfe=1), benchmark("b", fast), benchmark("old", fast), benchmark("c", fast[:4]))
    head = read(benchmark("a", slow, nfe=2), benchmark("b", fast), benchmark("fresh", fast), benchmark("c", slow))
    runs = {"base": [benchmarks.Ran(base, {})] * 3, "head": [benchmarks.Ran(head, {})] * 3}
    verdicts = {row.name: row.verdict for row in benchmarks.rows(runs)}
    expected = {"a": "regression", "a: nfe": "regression", "b": "same", "old": "broken", "fresh": "new", "c": "unclear"}
    assert verdicts == expected


FAST = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05]


def verdicts_of(base: list[benchmarks.Ran], head: list[benchmarks.Ran]) -> dict[str, str]:
    return {row.name: row.verdict for row in benchmarks.rows({"base": base, "head": head})}


def test_no_failure_of_pytest_ends_as_the_same() -> None:
    good, none = benchmarks.Ran(read(benchmark("a", FAST)), {}), benchmarks.Ran({}, {"a": "ValueError"})
    failed = benchmarks.Ran(good.found, {"a": "AssertionError: 2 != 3"})
    assert verdicts_of([good, good], [good, good]) == {"a": "same"}
    assert verdicts_of([good, good], [good, none]) == {"a": "broken"}, "not measured in one pair of two"
    assert verdicts_of([good, none], [good, good]) == {"a": "error"}, "the base ran it before: it is not new"
    assert verdicts_of([good, none], [good, none]) == {"a": "error"}
    assert verdicts_of([none, none], [none, none]) == {"a": "error"}
    assert verdicts_of([good, good], [failed, failed]) == {"a": "broken"}, "fast, and wrong"
    assert verdicts_of([failed, failed], [failed, failed]) == {"a": "same"}, "as it was"
    assert verdicts_of([good, good, good], [failed, good, good]) == {"a": "same"}, "once of three times"


def test_files_and_runs_that_fail_are_rows_unless_their_benchmarks_tell_it() -> None:
    held = read(benchmark("t/test_x.py::a", FAST))
    whole = benchmarks.Ran({}, {"t": "exit status 3"})
    file = benchmarks.Ran({}, {"t/test_x.py": "SyntaxError"})
    assert verdicts_of([benchmarks.Ran(held, {})], [file]) == {"t/test_x.py::a": "broken"}
    assert verdicts_of([file], [file]) == {"t/test_x.py": "error"}
    (row,) = benchmarks.rows({"base": [benchmarks.Ran(held, {})], "head": [whole]})
    assert (row.verdict, row.note) == ("broken", "head: exit status 3")
    crashed = benchmarks.Ran(held, {"t": "exit status 3"})
    assert verdicts_of([benchmarks.Ran(held, {})], [crashed]) == {"t/test_x.py::a": "same", "t": "broken"}
    assert "head: t: exit status 3" in benchmarks.notes({"base": [], "head": [crashed]})[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": [{"fullname": "a", "stats": {"mean": 1}}]}'])
def test_other_files_than_pytest_benchmarks_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--benchmark-save-data"):
        benchmarks.read(text, "x.json")
    with pytest.raises(UserError, match="expected times above 0"):
        read(benchmark("a", [0.0, 1.0]))
    with pytest.raises(UserError, match=r"expected numbers in extra_info\.counters"):
        read(benchmark("a", FAST, nfe="many"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("hits", "trials"), [(0, 40), (39, 40), (40, 40), (3, 7)])
def test_wilson_intervals_are_scipys(hits: int, trials: int) -> None:
    theirs = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert wilson(hits, trials) == pytest.approx((theirs.low, theirs.high))
    assert wilson(0, 0) == (0, 1)


def timed(name: str, extra: float, factor: float) -> Timed:
    base = tuple(1 + 0.001 * i for i in range(10))
    pairs = [Pair(base, tuple(factor * x for x in base))] * 2
    return Timed(Planted(name, extra), Tally(3, pairs))


def test_the_self_test_counts_alarms_and_finds_apart() -> None:
    test = SelfTest(("a", "b"), 0.15, 3)
    test.add([timed("a", 0, 1.0), timed("a", 0.15, 1.15), timed("b", 0, 1.2), timed("b", 0.15, 1.0)])
    assert (test.alarms["a"], test.alarms["b"]) == (Rate(0, 1), Rate(1, 1))
    assert (test.found["a"], test.found["b"]) == (Rate(1, 1), Rate(0, 1))
    assert test.any_alarm == Rate(1, 1)
    assert pooled(test.found) == Rate(1, 2)
    kept = json.loads(json.dumps(test.as_json(1.0)))
    assert kept["found"]["all"]["hits"] == 1
    assert kept["trials"][0]["a +15%"][0]["ratio"] == 1.15
    assert test.outcome(1.0).exit_code == 1, "one of two found is not what it promises"
    good = SelfTest(("a",), 0.15, 3)
    good.add([timed("a", 0, 1.0), timed("a", 0.15, 1.15)])
    assert good.outcome(1.0).exit_code == 0


def test_a_self_test_that_is_stopped_tells_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.py").write_text("WORKLOADS = {'w': lambda device: (sum, {})}\n")
    trials = [[timed("w", 0, 1.0), timed("w", 0.15, 1.15)]]

    def measure(*_: object) -> list[Timed]:
        if not trials:
            raise KeyboardInterrupt
        return trials.pop()

    monkeypatch.setattr("bench.gate.selftest.timing.measure", measure)
    test = run(tmp_path, Job(tmp_path / "s.py", ""), trials=5)
    assert (test.alarms["w"], test.found["w"]) == (Rate(0, 1), Rate(1, 1))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Job(tmp_path / "s.py", ""), trials=5)


def test_the_self_test_plants_more_of_the_same_work(tmp_path: Path) -> None:
    """On a clock that the work winds, 20 calls against 23 are 1.15 exactly."""
    (tmp_path / "s.py").write_text(
        "import time\nnow = 0.0\ntime.perf_counter = lambda: now\n"
        "def call():\n    global now\n    now += 1e-4\n"
        "WORKLOADS = {'w': lambda device: (call, {})}\n"
    )
    test = run(tmp_path, Job(tmp_path / "s.py", ""), trials=2)
    assert (test.alarms["w"], test.found["w"]) == (Rate(0, 2), Rate(2, 2))
    assert all(pair["ratio"] == 1.15 for trial in test.trials for pair in trial["w +15%"])
    assert len(test.trials[0]["w"]) == 3, "the last two pairs could change nothing"

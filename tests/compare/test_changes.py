"""Folders side by side: what meets, what is refused, what is beyond noise, and what people are shown of it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from baselines.errors import UserError
from baselines.types import Draw
from bench.compare.changes import Change, Comparison, compare
from bench.compare.telling import document
from bench.report.document import as_markdown, html
from tests.command import trilemma_here
from tests.compare.made import bits, coverage, fd, folder, nfe, rate, record
from tests.report.conftest import write_results

EVIL = "<script>alert(1)</script> | [red]`\x1b[31m"
NOISE = (0.0, 0.004, -0.003, 0.002)


def changes(found: Comparison, i: int = 0) -> dict[str, Change]:
    return {f"{found.names[key][0]}: {key[1]}": change for key, change in found.changes[i].items()}


def test_the_verdict_is_students_paired_t_after_holms_correction(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logs = {name: rng.normal(0, 0.05, (2, 5)) for name in ("alike", "worse", "better", "hardly")}
    logs["worse"][1] += 1
    logs["better"][1] -= 1
    logs["hardly"][1] += 0.03
    sides = [
        folder(tmp_path, name, *(record(m, s, fd(math.exp(x[side, s]))) for m, x in logs.items() for s in range(5)))
        for side, name in enumerate(("a", "b"))
    ]
    found = changes(compare(sides))
    ps = {name: float(scipy_stats.ttest_rel(x[1], x[0]).pvalue) for name, x in logs.items()}
    assert ps["alike"] > 0.05, "the premise"
    assert 0.05 / 3 < ps["hardly"] < 0.05, "the premise: lost by the correction"
    for name, p in ps.items():
        told = found[f"{name}-digits, native: fd[cnn]"]
        assert f"p {p / 2:.2g}" in told.sure
        assert told.size == pytest.approx(float((logs[name][1] - logs[name][0]).mean()))
    verdicts = {name: found[f"{name}-digits, native: fd[cnn]"].verdict for name in logs}
    expected = {"alike": "within noise", "worse": "worse", "better": "better", "hardly": "perhaps worse"}
    assert verdicts == expected


def test_higher_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", *(record("vae", s, coverage(0.5 + x)) for s, x in enumerate(NOISE)))
    b = folder(tmp_path, "b", *(record("vae", s, coverage(0.7 - x)) for s, x in enumerate(NOISE)))
    (change,) = changes(compare([a, b])).values()
    assert (change.verdict, change.text[:3]) == ("better", "+0.")
    (back,) = changes(compare([b, a])).values()
    assert (back.verdict, back.text[:3]) == ("worse", "-0.")


def test_other_protocols_are_refused_and_told(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", record("vae", 0, fd(2.0, 1.9, 2.1), coverage(0.5), rate(10.0)))
    b = folder(tmp_path, "b", record("vae", 0, fd(9.0, n=500), coverage(0.5), rate(90.0, device="H100")))
    found = compare([a, b])
    assert set(changes(found)) == {"vae-digits, native: coverage[cnn]"}
    refused = dict(found.meetings[0].refused)
    assert dict(refused.keys()) == {
        "fd[cnn]": "n: 1000 against 500",
        "images_per_s": 'device: "Synthetic CPU" against "H100"',
    }
    told = as_markdown(document(found))
    assert "n: 1000 against 500" in told
    assert "9.0" not in told
    only = folder(tmp_path, "only", record("vae", 0, fd(9.0, n=500)))
    with pytest.raises(UserError, match=r"none that can be compared; .*n: 1000 against 500"):
        compare([a, only], select="fd")


def test_speeds_are_trends_and_counters_exact(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", *(record("vae", s, rate(100.0), nfe(10)) for s in range(3)))
    b = folder(tmp_path, "b", *(record("vae", s, rate(50.0), nfe(11)) for s in range(3)))
    found = changes(compare([a, b]))
    assert found["vae-digits, native: images_per_s"].verdict == "trend", "half as fast, but at another moment"
    assert found["vae-digits, native: images_per_s"].text == "0.5×"
    assert found["vae-digits, native: nfe"].verdict == "changed"
    assert {c.verdict for c in changes(compare([a, a])).values()} == {"trend", "equal"}
    huge = folder(tmp_path, "huge", *(record("vae", s, rate(10**30)) for s in range(3)))  # an integer, from JSON
    assert changes(compare([a, huge]))["vae-digits, native: images_per_s"].text == "1e+28×"


def test_what_is_only_in_one_names_the_nearest_of_the_other(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", record("vae", 0, fd(2.0)), record("gan", 0, fd(2.0)), record("vae", 1, fd(2.0)))
    b = folder(tmp_path, "b", record("vae", 0, fd(2.0)), record("gan", 0, fd(2.0), config={"lr": 0.2}, budget=200))
    alone = {(x.folder, x.label, x.seeds): x.why for x in compare([a, b]).meetings[0].alone}
    gan = "gan-digits (lr=0.1, 100 images), native"
    assert alone["a", gan, (0,)] == "nearest in b: budget: 100 images → 200 images; lr: 0.1 → 0.2"
    assert alone["a", "vae-digits, native", (1,)] == "b has seeds 0"
    assert len(alone) == 3
    with pytest.raises(UserError, match=r"in common, .*budget: 100 images → 200 images.*--across new-settings"):
        compare([a, b], select="gan")


def test_cells_that_differ_are_paired_when_asked_and_marked(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", *(record("vae", s, fd(2.0 + x)) for s, x in enumerate(NOISE)))
    newer = {"lr": 0.1, "prior": "normal"}
    b = folder(tmp_path, "b", *(record("vae", s, fd(3.0 - x), config=newer) for s, x in enumerate(NOISE)))
    with pytest.raises(UserError, match="prior: - → normal"):
        compare([a, b])
    for across in ("new-settings", "config"):
        (change,) = changes(compare([a, b], across=(across,))).values()
        assert change.verdict == "worse"
        assert "prior: - → normal" in as_markdown(document(compare([a, b], across=(across,))))
    other = folder(tmp_path, "other", *(record("vae", s, fd(3.0), config={"lr": 0.2, "prior": "x"}) for s in range(4)))
    with pytest.raises(UserError, match="in common"):
        compare([a, other], across=("new-settings",))
    budget = folder(tmp_path, "budget", record("vae", 0, fd(3.0), budget=7), record("vae", 0, fd(4.0), budget=8))
    with pytest.raises(UserError, match="cannot be paired: budget has another that differs in budget"):
        compare([a, budget], across=("budget",))


def test_what_failed_is_told(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", record("vae", 0, fd(2.0)), record("gan", 0, fd(2.0)))
    b = folder(tmp_path, "b", record("vae", 0, error="ValueError: boom\nmore"), record("gan", 0, fd(2.0)))
    found = compare([a, b])
    assert found.meetings[0].failed == [("vae-digits, native seed 0", "ok", "failed", "ValueError: boom")]
    assert "ValueError: boom" in as_markdown(document(found))


def test_one_seed_goes_by_its_own_intervals_or_cannot_tell(tmp_path: Path) -> None:
    a = folder(tmp_path, "a", record("vae", 0, fd(2.0, 1.9, 2.1), coverage(0.5)))
    b = folder(tmp_path, "b", record("vae", 0, fd(4.0, 3.9, 4.1), coverage(0.6)))
    found = changes(compare([a, b]))
    assert found["vae-digits, native: fd[cnn]"].verdict == "worse"
    assert "own intervals" in found["vae-digits, native: fd[cnn]"].sure
    assert found["vae-digits, native: coverage[cnn]"].verdict == "cannot tell"


def test_three_folders_stand_beside_each_other(tmp_path: Path) -> None:
    made = [
        folder(tmp_path, name, *(record("vae", s, fd(value + x * k)) for s, x in enumerate(NOISE)))
        for name, value, k in (("a", 2.0, 1), ("b", 3.0, 2), ("c", 1.0, -1))
    ]
    found = compare(made)
    assert [change.verdict for i in range(2) for change in changes(found, i).values()] == ["worse", "better"]
    (line,) = document(found).tables[0].lines
    assert [datum.text for datum in line.data] == [
        *("vae-digits, native", "fd[cnn]", "2.001"),
        *("3.001", "+50 %", "worse", "0.9992", "-50.1 %", "better"),
    ]


def test_folders_of_one_name_and_copies_are_told(tmp_path: Path) -> None:
    a, b = (folder(tmp_path / name, "results", record("vae", 0, fd(2.0))) for name in ("mine", "theirs"))
    found = compare([a, b])
    assert [f.name for f in found.folders] == ["mine/results", "theirs/results"]
    assert found.meetings[0].copies == 1
    assert [f.name for f in compare([a, a]).folders] == ["results (1)", "results (2)"]


def test_the_command_writes_each_form(tmp_path: Path) -> None:
    folder(tmp_path, "a", *(record("vae", s, fd(2.0 + x), bits(1.9 + x)) for s, x in enumerate(NOISE)))
    folder(tmp_path, "b", *(record("vae", s, fd(3.0 - x), bits(1.9 + x)) for s, x in enumerate(NOISE)))
    done = trilemma_here(tmp_path, "compare", "a", "b", "--html", "c.html", "--markdown", "c.md")
    assert done.returncode == 0, done.stderr
    assert "1 worse beyond noise" in " ".join(done.stdout.split())
    page = (tmp_path / "c.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", page), "self-contained"
    assert "+49.9 %" in page
    piped = trilemma_here(tmp_path, "compare", "a", "b", "--markdown", "-")
    assert piped.stdout == (tmp_path / "c.md").read_text(), "and nothing else"
    assert "| **worse** |" in piped.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a",), "expected two results folders or more, got 1"),
        (("a", "missing"), "expected a folder with records"),
        (("a", "empty"), "expected records to report, got none"),
        (("a", "a", "--across", "seed"), "--across: expected one of new-settings, config, budget, got 'seed'"),
        (("a", "a", "--html", "-"), "expected a file to write the page to"),
        (("a", "a", "--html", "no/where.html"), "expected a file in an existing folder"),
        (("a", "a", "--markdown", "empty"), "expected a file in an existing folder"),
        (("a", "a", "--select", "nobody"), "whose name holds 'nobody'"),
    ],
)
def test_bad_input_is_a_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    folder(tmp_path, "a", record("vae", 0, fd(2.0)))
    (tmp_path / "empty").mkdir()
    done = trilemma_here(tmp_path, "compare", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    draw = Draw("ddim", 5, options={"x": EVIL})
    made = [record(EVIL, 0, replace(fd(2.0), metric=f"fd[{EVIL}]"), draw=draw, dataset=EVIL, commit=EVIL)]
    a, b = folder(tmp_path, "a", *made), folder(tmp_path, "b", *made)
    page = html(document(compare([a, b])))
    assert "alert(1)" in page
    assert "<script>alert" not in page
    done = trilemma_here(tmp_path, "compare", "a", "b", "--all")
    assert "alert(1)" in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert "<script>" not in as_markdown(document(compare([a, b])))


def test_a_report_tells_what_changed_since_another_run(tmp_path: Path) -> None:
    models = ("vae", "histogram", "real")
    write_results(tmp_path / "old", models, seeds=(0, 1, 2))

    def worse(held):  # type: ignore[no-untyped-def]
        wider = 3.0 if held.cell.model == "vae" else 1.0
        measured = [replace(m, value=wider * m.value) if m.metric.startswith("fd[") else m for m in held.measured]
        return replace(held, measured=tuple(measured))

    write_results(tmp_path / "new", models, seeds=(0, 1, 2), change=worse)
    done = trilemma_here(tmp_path, "report", "new", "--against", "old", "-o", "out")
    assert done.returncode == 0, done.stderr
    page, text = ((tmp_path / "out" / name).read_text() for name in ("index.html", "report.md"))
    assert '<section id="changes">' in page
    assert '<a href="#changes">What changed since old</a>' in page
    for told in (page, text):
        assert "What changed since old" in told
        assert "+200 %" in told
    plain = trilemma_here(tmp_path, "report", "new", "-o", "plain")
    assert plain.returncode == 0
    assert "What changed since" not in (tmp_path / "plain" / "index.html").read_text()
    lost = trilemma_here(tmp_path, "report", "new", "--against", "missing", "-o", "none")
    assert lost.returncode == 2
    assert not (tmp_path / "none").exists(), "refused before anything is written"

"""What strangers made is data: it runs nothing, leads out of no folder, and is shown as text."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import os
import re
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from baselines import registry
from baselines.errors import UserError
from bench import artifacts, durable, store
from bench.executors.freight import Piece, Unpacker
from bench.plain_text import cell, csv_frame, printable
from bench.record import Artifact, Record
from bench.report import render_terminal_table, write_report
from bench.report.artifacts import read_artifact
from tests.command import trilemma_here
from tests.report.conftest import write_results
from tests.report.test_report import Page
from tests.test_architecture import FILES, ROOT, imports
from tests.test_store import make

# What the source may not hold

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "yaml", "jsonpickle"}
RUNNERS = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint", "input"}
IMPORTERS = {"baselines/importing.py", "baselines/registry.py", "bench/__init__.py", "bench/gate/workloads.py"}
IMPORTERS |= {"bench/gate/child.py"}  # the gate imports by name what lies in its own trees
IMPORTERS |= {"bench/peers/contest.py"}  # and the races their own files, of a list in the source


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, name of what is called, the call) of all the source."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def test_no_module_that_unpickles_is_imported() -> None:
    for path in FILES:
        found = {name for name in imports(path) if name.split(".")[0] in UNPICKLERS}
        if path.name in ("weights_file.py", "extraction.py"):  # which tell of its errors, and call nothing of it
            found -= {"pickle", "pickle.PicklingError"}
        assert not found, (path, found)


def test_no_call_runs_what_it_reads() -> None:
    seen = set()
    for file, called, node in calls():
        seen.add(called)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert called not in RUNNERS, (file, called)
        assert called.split(".")[0] not in UNPICKLERS, (file, called)
        assert called not in ("os.system", "os.popen", "torch.hub.load", "pd.read_pickle", "marshal.loads"), file
        assert keywords.get("shell", "False") == "False", file
        assert keywords.get("allow_pickle", "False") == "False", file
        assert not called.endswith((".extractall", ".unpack_archive")), (file, "archives are read member by member")
        if called == "torch.jit.load":  # tensors of a file whose hash is the published one; nothing of it is called
            assert file == "bench/metrics/clip.py"
        if "import_module" in called or "spec_from_file" in called or "exec_module" in called:
            assert file in IMPORTERS, (file, called)
    assert {"torch.load", "np.load", "json.loads", "importlib.import_module"} <= seen, "the premise: calls are found"


def test_durations_are_read_from_clocks_that_nobody_sets() -> None:
    stamps = {"bench/provenance.py", "bench/tracking.py", "bench/metrics/coverage_study.py"}  # when, not how long
    for file, called, _ in calls():
        if called in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"):
            assert file in stamps, (file, called)


# What is imported

BOMB = "import pathlib\npathlib.Path({mark!r}).touch()\nMODEL = None\n"


def test_show_report_and_gate_import_nothing_that_records_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "bomb.py").write_text(BOMB.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))

    def named(record: Record) -> Record:
        name = "bomb" if record.cell.seed else str(tmp_path / "bomb.py")
        return replace(record, cell=replace(record.cell, model=name, dataset="bomb"))

    folder = write_results(tmp_path / "results", models=("vae", "dcgan"), change=named, families=False)
    info = store.read_run(folder)
    families = {"bomb": {"family": "bomb", "title": "bomb", "source": "bomb"}}
    store.write_run(folder, {**info, "matrix": "bomb", "families": families})
    for arguments in (
        ("show", "results"),
        ("show", "results", "--format", "csv"),
        ("show", "results", "--where", "model=bomb"),
        ("report", "results", "-o", "out"),
        ("gate", "results", "results"),
    ):
        done = trilemma_here(tmp_path, *arguments)
        assert done.returncode in (0, 1), (arguments, done.stderr)
    assert "bomb" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8"), "the premise: it is told"
    assert not mark.exists()
    assert "bomb" not in sys.modules
    assert trilemma_here(tmp_path, "run", "smoke", "--model", "bomb", "--dry-run").returncode == 2
    assert mark.exists(), "whoever names it by --model has it imported"


def test_a_matrix_is_data_and_names_nothing_but_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("other", str(tmp_path / "other.py"), "antigravity", "this", "posix", "os:system", "xml"):
        (tmp_path / "mine.toml").write_text(f"[[models]]\nmodel = '{name}'\n")
        done = trilemma_here(tmp_path, "run", "mine.toml", "--dry-run")
        assert done.returncode == 2, name
        assert done.stderr.startswith("error: "), done.stderr
    assert not (tmp_path / "imported").exists()
    assert not {"other", "antigravity", "this"} & set(sys.modules)
    with pytest.raises(UserError, match="not imported"):
        registry.load("this")
    for value in ("\"__import__('os').system('true')\"", '"{{7*7}}"', '"$(touch imported)"'):
        (tmp_path / "mine.toml").write_text(f"[[models]]\nmodel = 'vae'\nconfig = {{ latent = {value} }}\n")
        done = trilemma_here(tmp_path, "run", "mine.toml", "--dry-run")
        assert done.returncode == 2
        assert "latent" in done.stderr


# Paths


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/hostname", "artifacts/../../secret", "artifacts/link", "artifacts/up/x"]
)
def test_a_run_reads_no_artifact_outside_of_its_folder(tmp_path: Path, path: str) -> None:
    results = tmp_path / "results"
    (results / "artifacts").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "x").write_bytes(b"secret")
    (results / "artifacts" / "link").symlink_to(secret)
    (results / "artifacts" / "up").symlink_to(tmp_path)
    artifact = Artifact("samples", path, hashlib.sha256(b"secret").hexdigest())
    assert not artifacts.is_whole(results, artifact)
    assert artifacts.load_images(results, artifact) is None
    with pytest.raises(UserError, match="refused"):
        read_artifact(results, artifact)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    os.mkfifo(tmp_path / "artifacts" / "pipe")
    artifact = Artifact("samples", "artifacts/pipe", "0" * 64)
    assert not artifacts.is_whole(tmp_path, artifact)
    with pytest.raises(UserError, match="no file"):
        read_artifact(tmp_path, artifact)
    store.append(tmp_path, make("a"))
    os.mkfifo(tmp_path / "records" / "0009.jsonl")
    (tmp_path / "records" / "0008.jsonl").symlink_to("/dev/zero")
    loaded = store.load(tmp_path)
    assert loaded.records == (make("a"),)
    assert [problem.partition(":")[0] for problem in loaded.problems] == ["records/0008.jsonl", "records/0009.jsonl"]


def test_records_that_a_link_leads_out_to_are_not_read(tmp_path: Path) -> None:
    store.append(tmp_path / "results", make("a"))
    outside = store.append(tmp_path / "outside", make("b"))
    (tmp_path / "results" / "records" / "0002.jsonl").symlink_to(outside)
    loaded = store.load(tmp_path / "results")
    assert loaded.records == (make("a"),)
    assert loaded.problems == ("records/0002.jsonl: skipped, no file of this folder",)


def test_what_arrives_from_a_node_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    for folder in (results, outside):
        folder.mkdir()
    (results / "artifacts").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of it"):
        Unpacker(results).take(Piece("artifacts/x", b"x", True, True))
    assert not list(outside.iterdir())
    assert durable.is_inside(results / "a", results)


# Texts

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`$\\frac{ \x1b[31m\x07 \u202e]]>"
FIXED = {"key", "train_key", "status", "sha256", "path", "role", "kind", "better", "scope", "schema"}
"""What a reader checks or looks up: records with other values there are no records, or are of no use."""


def poisoned(value: Any, name: str = "") -> Any:
    """Every text, and every name that is not a record's own, is evil."""
    if isinstance(value, dict):
        free = name in ("config", "skipped", "provenance", "protocol", "options", "versions")
        return {(f"{key}{EVIL}" if free else key): poisoned(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, name) for item in value]
    if not isinstance(value, str) or name in FIXED:
        return value
    if name == "metric":
        return f"{value.partition('[')[0]}[{EVIL}]" if "[" in value else value
    return EVIL if name in ("note", "error", "model", "dataset") else f"{value}{EVIL}"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with markup in all its texts."""
    folder = tmp_path_factory.mktemp("evil") / "results"

    def change(record: Record) -> Record:
        plain = json.loads(json.dumps(record.as_json()))
        if record.cell.seed:
            plain |= {"status": "failed", "error": EVIL}
        plain["measured"].append({**plain["measured"][0], "metric": f"new{EVIL}", "unit": EVIL})
        model = plain["cell"]["model"]
        plain = poisoned(plain)
        plain["cell"]["model"] = model if model in ("real", "histogram") else f"{model}{EVIL}"
        return Record.from_json(plain)

    write_results(folder, models=("real", "vae", "ddpm", "histogram"), change=change)
    info = store.read_run(folder)
    names = {record.cell.model for record in store.load(folder).records}
    families = {name: {"family": "diffusion", "title": f"{name[:4]} {EVIL}", "source": EVIL} for name in names}
    store.write_run(folder, {**info, "title": EVIL, "matrix": EVIL, "families": families, "missing": [EVIL]})
    write_report(folder, folder.parent / "out")
    return folder


class Broken(Page):
    """A page with places where long words may break."""

    VOID = Page.VOID | {"wbr"}


def test_markup_anywhere_in_records_is_text_in_the_page_and_in_the_pictures(evil: Path) -> None:
    out = evil.parent / "out"
    page = Broken((out / "index.html").read_text(encoding="utf-8"))
    assert len(page.of("script")) == 1, "the page's own"
    attributes = [name for _, attrs in page.elements for name in attrs]
    assert not list(attrs_of_events(attributes))
    assert page.text.count("<script>alert(1)</script>") > 10, "seen as text"
    for address in (a for _, attrs in page.elements for n, a in attrs.items() if n in ("href", "src")):
        assert (address or "").startswith(("#", "data:image/", "figures/", "table.csv", "report.md", "tables.tex"))
    pictures = sorted((out / "figures").glob("*.svg"))
    assert len(pictures) > 3
    for path in pictures:
        tree = xml.etree.ElementTree.fromstring(path.read_text(encoding="utf-8"))
        for element in tree.iter():
            assert not str(element.tag).lower().endswith(("}script", "}foreignobject")), path
            assert not list(attrs_of_events(element.attrib)), path


def attrs_of_events(names: Any) -> Iterator[str]:
    return (name for name in names if re.match(r"on[a-z]+$", str(name).rpartition("}")[2].lower()))


def test_markup_in_records_is_text_in_markdown_latex_and_on_the_terminal(evil: Path) -> None:
    out = evil.parent / "out"
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert "alert(1)" in markdown
    assert not re.search(r"<(?!/?(?:sup|sub)>)", markdown.replace("\\<", "")), "no element of a record's"
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    assert "alert" in latex
    assert r"\frac" not in "".join(line for line in latex.splitlines() if not line.startswith("%"))
    console = Console(width=200, file=(held := io.StringIO()))
    console.print(render_terminal_table(evil))
    told = held.getvalue() + trilemma_here(evil.parent, "show", "results", "--where", "model~vae").stdout
    assert "alert" in told
    assert printable(told) == told


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    formula = "=cmd|' /C calc'!A0"

    def change(record: Record) -> Record:
        cell_ = replace(record.cell, model=formula, dataset="@SUM(1)")
        more = replace(record.measured[0], metric="+1+1", note="-2+3", unit="\t=1", value=-1.5)
        return replace(record, cell=cell_, measured=(*record.measured, more))

    folder = write_results(tmp_path / "results", models=("vae", "ddpm"), change=change, families=False)
    write_report(folder, tmp_path / "out")
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*.csv")}
    files["shown"] = trilemma_here(tmp_path, "show", "results", "--csv").stdout
    assert len(files) > 3
    for name, text in files.items():
        for row in csv.reader(io.StringIO(text)):
            for value in row:
                assert not value.startswith(("=", "@", "\t")), (name, value)
                assert not value.startswith(("+", "-")) or is_number(value), (name, value)
    shown = pd.read_csv(io.StringIO(files["shown"]))
    assert set(shown["model"]) == {f"'{formula}"}
    assert -1.5 in set(shown["value"]), "numbers stay numbers"
    assert f"'{formula}" in files["table.csv"]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@given(st.text(max_size=30))
def test_printable_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    plain = printable(text)
    assert not [sign for sign in plain if sign not in "\t\n" and (sign < " " or "\x7f" <= sign <= "\x9f")]
    assert printable(plain) == plain
    assert [sign for sign in text if sign.isalnum()] == [s for s in plain if s.isalnum()] or "\x1b" in text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[2J\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\rb\x08c\x9b31m", "a?b?c?31m"),
        ("é 日本\tto\nstay ≤", "é 日本\tto\nstay ≤"),
    ],
)
def test_escape_sequences_are_left_out_whole(text: str, plain: str) -> None:
    assert printable(text) == plain


def test_cells_of_csv_files_keep_numbers_and_plain_texts() -> None:
    assert [cell(value) for value in ("-1.5", "+2e-3", "-inf", -1.5, None, "vae", "")] == [
        "-1.5",
        "+2e-3",
        "-inf",
        -1.5,
        None,
        "vae",
        "",
    ]
    assert [cell(value) for value in ("=1", "-x", "@a", "\tb", "\rc")] == ["'=1", "'-x", "'@a", "'\tb", "'\rc"]
    frame = pd.DataFrame({"=a": ["=b", "c"], "n": [-1.0, 2.0]})
    safe = csv_frame(frame)
    assert list(safe.columns) == ["'=a", "n"]
    assert list(safe["'=a"]) == ["'=b", "c"]
    assert list(frame["=a"]) == ["=b", "c"], "the caller's is as it was"

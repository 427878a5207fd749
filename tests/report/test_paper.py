"""What a paper takes from a report: figures as PDF whose text is text, and tables that LaTeX compiles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from typer.testing import CliRunner

from bench.cli import app
from bench.report import write_report
from bench.report.latex import escape, table
from bench.report.style import Picture, draw, papers
from bench.report.tables import Column, Datum, Line, Table

Make = Callable[..., Path]


def paint(figure: Figure) -> None:
    canvas = figure.subplots()
    canvas.plot([0, 1, 2], [1.5, 0.25, -0.125], label="a line")
    canvas.set_xlabel("FD of samples")
    canvas.annotate("by its mark", (1, 1), path_effects=[withStroke(linewidth=2.5, foreground="white")])


def picture() -> Picture:
    return draw("f", "t", "c", (4, 3), paint)


def pdf_of_picture() -> bytes:
    with papers(lambda name: name == "f"):
        pdf = picture().pdf
    assert pdf is not None
    return pdf


def streams(pdf: bytes) -> Iterator[bytes]:
    """What the file holds, uncompressed."""
    for held in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            yield zlib.decompress(held)
        except zlib.error:
            yield held


def test_a_pdf_has_its_text_as_text_in_embedded_fonts_and_no_date() -> None:
    pdf = pdf_of_picture()
    assert pdf.startswith(b"%PDF-")
    assert not re.search(rb"CreationDate|/Creator|/Producer|/Subtype\s*/Type3", pdf)
    assert re.search(rb"/FontFile2", pdf)
    shown = b"".join(b"".join(re.findall(rb"\(((?:[^()\\]|\\.)*)\)", held)) for held in streams(pdf))
    letters = shown.replace(b"\x00", b"")  # of a letter's two bytes
    assert b"FD of samples" in letters
    assert b"by its mark" in letters


def test_a_pdf_leaves_the_other_files_as_they_are_and_is_the_same_each_time() -> None:
    plain = picture()
    assert plain.pdf is None
    with papers(lambda name: name == "f"):
        printed = picture()
    assert (printed.svg, printed.png) == (plain.svg, plain.png)
    assert printed.pdf == pdf_of_picture()
    code = "import hashlib, tests.report.test_paper as t\nprint(hashlib.sha256(t.pdf_of_picture()).hexdigest())"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_pdf_figures_lie_beside_the_others_when_asked_for_and_never_grow_old(
    make_results: Make, tmp_path: Path
) -> None:
    first, second = (make_results(n, models=("real", m, "histogram")) for n, m in (("a", "vae"), ("b", "dcgan")))
    out, figures = tmp_path / "out", tmp_path / "out" / "figures"
    write_report(first, out)
    assert not list(figures.glob("*.pdf"))
    done = CliRunner().invoke(app, ["report", str(first), "-o", str(out), "--pdf"])
    assert done.exit_code == 0, done.output
    assert (
        {path.stem for path in figures.glob("*.pdf")} == {path.stem for path in figures.glob("*.svg")} > {"map-digits"}
    )
    before = (figures / "map-digits.pdf").read_bytes()
    write_report(second, out)
    after = (figures / "map-digits.pdf").read_bytes()
    assert after != before
    write_report(second, tmp_path / "other", pdf=True)
    assert after == (tmp_path / "other" / "figures" / "map-digits.pdf").read_bytes()


# LaTeX

EVIL = r"\input{/etc/passwd} $x^2$ 50% {a}_b & \\ #1 ~ ^ < > | \" ` ' -- --- ,, !` ?` ff"
SIGNS = "".join(chr(i) for i in (*range(0x20, 0x250), *range(0x370, 0x400), 0x2013, 0x2026, 0x2192, 0x65E5, 0x1F600))


def test_no_sign_of_a_text_is_lost_or_reaches_latex_as_it_cannot_be_set() -> None:
    printable = [sign for sign in SIGNS if sign.isprintable()]
    made = {sign: escape(f"a{sign}b") for sign in printable}
    assert len(printable) > 600, "the premise"
    alike = [sign for sign in printable if list(made.values()).count(made[sign]) > 1]
    assert alike == ["µ", "μ"], "the unit and the letter"
    assert escape("Fréchet β = 1 → 2") == r"Fréchet $\beta$ = 1 $\to$ 2"
    assert escape("--pdf a–b") == "-{}-pdf a--b"
    assert escape("-3.97 – -0.09, lr=1e-3") == "$-$3.97 -- $-$0.09, lr=1e-3"


def test_a_cell_is_no_argument_of_the_line_break_before_it() -> None:
    columns = (Column("Model", numeric=False), Column("FD"))
    lines = [Line((Datum(text), Datum("1", 1.0))) for text in ("[2cm]", "*", "plain")]
    body = table(Table("main", "All", "", columns, tuple(lines)), "x", "digits").partition(r"\midrule")[2]
    assert body.count(r"\\") == 3
    assert not re.search(r"(\\\\|^)\s*[\[*]", body)


def made_up(rows: int, columns: int) -> Table:
    """A table whose squares say where they are."""
    heads = (Column("Model", numeric=False), *(Column(f"metric number {j}", "a detail ↓") for j in range(columns)))
    lines = [
        Line(
            (
                Datum(f"model {i} with a name of some length", f"{i}"),
                *(Datum(f"{i}.{j}", float(i)) for j in range(columns)),
            )
        )
        for i in range(rows)
    ]
    return Table("main", "All", "", heads, tuple(lines), intervals="Intervals: none.")


@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (3, 30), (100, 2), (100, 30)])
def test_parts_of_a_table_have_each_square_once_with_its_row_and_head(rows: int, columns: int) -> None:
    text = table(made_up(rows, columns), "x", "digits")
    seen: dict[str, int] = {}
    for part in text.split(r"\begin{table}")[1:]:
        heads = re.findall(r"metric number (\d+)", part)
        for line in re.findall(r"^model (\d+) with[^&]*& (.*) \\\\$", part, re.M):
            assert line[1].split(" & ") == [f"{line[0]}.{j}" for j in heads]
            for square in line[1].split(" & "):
                seen[square] = seen.get(square, 0) + 1
    assert text.count("Intervals: none.") == 1
    assert seen == {f"{i}.{j}": 1 for i in range(rows) for j in range(columns)}
    labels = re.findall(r"\\label\{([^}]*)\}", text)
    assert len(labels) == len(set(labels)) == text.count(r"\begin{table}")
    assert (len(labels) > 1) == (max(rows, columns) > 3)


def test_rows_that_have_no_room_at_all_are_counted() -> None:
    assert "44 further rows are in table.csv." in table(made_up(200, 1), "x", "digits")


DOCUMENT = r"""\documentclass[a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage{array,booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex, such as Debian's texlive-latex-recommended"
)
class TestCompiled:
    """By a real LaTeX."""

    def compiled(self, folder: Path, body: str) -> str:
        """The log of a document with this body; a page is wanted, and no error."""
        (folder / "paper.tex").write_text(DOCUMENT % body, encoding="utf-8")
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"],
            cwd=folder,
            capture_output=True,
            timeout=120,
        )
        log = (folder / "paper.log").read_text(encoding="utf-8", errors="replace")
        assert done.returncode == 0, log[-3000:]
        assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF-")
        return log

    def test_every_sign_can_be_set(self, tmp_path: Path) -> None:
        lines = [escape(SIGNS[i : i + 60]) + r"\par" for i in range(0, len(SIGNS), 60)]
        log = self.compiled(tmp_path, "\n".join([*lines, escape(EVIL)]))
        assert "Missing character" not in log

    def test_all_tables_of_a_report_fit_their_pages(self, written: Path, tmp_path: Path) -> None:
        shutil.copy(written / "tables.tex", tmp_path)
        log = self.compiled(tmp_path, r"\input{tables}")
        assert "Overfull" not in log
        assert "Float too large" not in log
        assert "multiply defined" not in log

    def test_a_figure_can_be_included(self, tmp_path: Path) -> None:
        (tmp_path / "f.pdf").write_bytes(pdf_of_picture())
        self.compiled(tmp_path, r"\includegraphics[width=\linewidth]{f}")

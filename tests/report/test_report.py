"""The written report: whole for any subset of a run, the same bytes each time, and safe to open."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from baselines.errors import UserError
from baselines.types import Draw
from bench import store
from bench.record import Artifact, Record
from bench.report import render_terminal_table, write_report
from bench.report.markdown import escape

Make = Callable[..., Path]
EVIL = "$\\frac{$ <script>alert('x')</script>\"'&<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, texts by element, and the nesting checked."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def report(folder: Path) -> tuple[Page, Path]:
    page = write_report(folder, folder.parent / "out")
    return Page(page.read_text(encoding="utf-8")), page.parent


def test_the_same_records_give_the_same_bytes(results: Path, written: Path, tmp_path: Path) -> None:
    again = write_report(results, tmp_path / "again").parent
    files = {path.relative_to(written) for path in written.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert len(files) > 20
    for name in files:
        assert (written / name).read_bytes() == (again / name).read_bytes(), name


def test_the_page_is_one_file_that_asks_for_nothing_outside(written: Path) -> None:
    text = (written / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, value)
    assert len(page.of("script")) == len(page.of("style")) == 1
    assert not [attributes for _, attributes in page.elements if "style" in attributes]  # the CSP would refuse them
    assert not re.search(r"url\(|@import", re.search(r"<style>(.*?)</style>", text, re.S)[1])  # type: ignore[index]


def test_the_policy_admits_exactly_the_script_and_style_of_the_page(written: Path) -> None:
    text = (written / "index.html").read_text(encoding="utf-8")
    policy = next(m["content"] for m in Page(text).of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert inner is not None
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_every_image_has_an_alternative_and_every_id_is_its_own(written: Path) -> None:
    page = Page((written / "index.html").read_text(encoding="utf-8"))
    assert all(image["alt"] for image in page.of("img"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.of("a")} <= {f"#{name}" for name in ids}


def test_figures_lie_beside_the_page_as_svg_and_png_with_captions_in_it(written: Path) -> None:
    names = {path.stem for path in (written / "figures").glob("*.svg")}
    expected = (
        "trilemma map quality-latency quality-throughput steps steps-time steps-coverage steps-clock likelihood "
        "validation losses"
    )
    assert names == {f"{name}-digits" for name in expected.split()}
    for name in names:
        svg = (written / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<?xml")
        assert "<dc:date>" not in svg
        with Image.open(written / "figures" / f"{name}.png") as png:
            assert png.width > 600
    page = Page((written / "index.html").read_text(encoding="utf-8"))
    assert len(page.of("figcaption")) == len(page.of("figure")) > 10


def test_table_csv_holds_the_numbers_to_the_last_bit(results: Path, written: Path) -> None:
    wide = store.table(store.load(results).records)
    read = pd.read_csv(written / "table.csv", keep_default_na=True)
    assert list(read.columns) == list(wide.columns)
    numeric = [c for c in wide.columns if pd.api.types.is_float_dtype(wide[c]) and wide[c].notna().any()]
    assert "fd[digits-cnn]" in numeric
    pd.testing.assert_frame_equal(read[numeric].astype(float), wide[numeric], check_exact=True)
    assert list(read["key"]) == list(wide["key"])


def test_every_text_of_a_record_is_escaped(make_results: Make) -> None:
    def evil(record: Record) -> Record:
        draw = record.cell.draw and Draw("ddim", 5, options={"x": EVIL})
        cell = replace(record.cell, model=EVIL, dataset=EVIL, config={EVIL: EVIL}, draw=draw)
        measured = tuple(replace(m, note=EVIL, protocol={**m.protocol, EVIL: EVIL}) for m in record.measured)
        changed = replace(record, cell=cell, measured=measured, skipped={EVIL: EVIL}, provenance={EVIL: EVIL})
        return replace(changed, status="failed", error=EVIL) if record.cell.seed else changed

    folder = make_results(models=("vae",), change=evil, families=False)
    info = store.read_run(folder)
    store.write_run(
        folder, {**info, "title": EVIL, "matrix": EVIL, "families": {EVIL: {"title": EVIL, "source": EVIL}}}
    )
    with open(folder / "records" / f"{EVIL.replace('/', '')}.jsonl", "w", encoding="utf-8") as file:
        file.write("garbage\n")
    page, out = report(folder)
    assert len(page.of("script")) == 1
    assert not [a for _, a in page.elements if "onerror" in a]
    assert page.text.count("<script>alert('x')</script>") > 10  # seen as text
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown


def test_markdown_text_cannot_leave_its_cell() -> None:
    assert escape("a|b\n<c> `d` [e](f) *g*") == r"a\|b &lt;c&gt; \`d\` \[e\](f) \*g\*"


@pytest.mark.parametrize(
    ("models", "families"),
    [
        (("vae",), True),
        (("real",), True),
        (("histogram",), False),
        (("dcgan", "real"), False),
        (("ddpm",), True),
        (("gmm", "gaussian"), False),
        (("vae", "histogram"), True),
    ],
)
def test_any_subset_of_models_makes_a_whole_report(make_results: Make, models: tuple[str, ...], families: bool) -> None:
    folder = make_results(models=models, seeds=(0,), families=families)
    page, out = report(folder)
    assert "The trilemma on digits" in page.text
    assert (out / "report.md").stat().st_size > 500
    console = Console(width=80, file=io.StringIO())
    console.print(render_terminal_table(folder))


def test_records_of_training_alone_make_a_report(make_results: Make) -> None:
    folder = make_results(change=lambda r: r if r.cell.draw is None else None)
    page, _ = report(folder)
    assert "no quality axis: the run has no FD of real and histogram" in page.text
    assert "= 1.76" in page.text


def test_an_empty_folder_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for call in (lambda: write_report(tmp_path, tmp_path / "out"), lambda: render_terminal_table(tmp_path)):
        with pytest.raises(UserError, match="trilemma run"):
            call()
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_the_users_to_mend(results: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        write_report(results, tmp_path / "out")


def test_each_data_set_has_a_section_of_its_own(make_results: Make) -> None:
    folder = make_results(models=("real", "vae", "histogram"), seeds=(0,), datasets=("folder:/a b", "folder:/a-b"))
    page, out = report(folder)
    assert "The trilemma on folder:/a b" in page.text
    assert "The trilemma on folder:/a-b" in page.text
    assert len(list((out / "figures").glob("trilemma-*.svg"))) == 2  # names that do not collide


def test_failed_cells_are_told_with_their_error_and_how_to_run_them_again(make_results: Make) -> None:
    def failing(record: Record) -> Record | None:
        if record.cell.model != "dcgan":
            return record
        if record.cell.draw is not None:
            return None
        return replace(record, status="failed", error="NaN in phase generator at step 12", measured=(), artifacts=())

    folder = make_results(models=("real", "vae", "dcgan", "histogram"), change=failing)
    page, _ = report(folder)
    assert "NaN in phase generator at step 12" in page.text
    assert "trilemma run synthetic --model dcgan --dataset digits --seed 1" in page.text
    assert "DCGAN" in page.text  # its row stays
    console = Console(width=120, file=(held := io.StringIO()))
    console.print(render_terminal_table(folder))
    assert "failed" in held.getvalue()


def test_damaged_missing_and_escaping_artifacts_are_told_and_the_report_goes_on(make_results: Make) -> None:
    def escaping(record: Record) -> Record:
        if record.cell.model != "gmm":
            return record
        return replace(
            record, artifacts=tuple(Artifact(a.role, "../../etc/passwd", a.sha256) for a in record.artifacts)
        )

    folder = make_results(models=("real", "vae", "dcgan", "gmm"), seeds=(0,), change=escaping)
    paths = {
        (r.cell.model, a.role): folder / a.path
        for r in store.load(folder).records
        for a in r.artifacts
        if a.role != "real"
    }
    paths["vae", "samples"].write_bytes(b"damaged")
    paths["dcgan", "curve"].unlink()
    page, out = report(folder)
    assert re.search(r"vae-digits seed 0, native: artifact artifacts/samples-\w+\.npz: damaged", page.text)
    assert re.search(r"dcgan-digits seed 0: artifact artifacts/curve-\w+\.json: cannot be read", page.text)
    assert "'../../etc/passwd': refused" in page.text
    assert "damaged" in (out / "report.md").read_text(encoding="utf-8")
    titles = [svg["aria-label"] for svg in page.of("svg") if svg.get("class") == "pixels zoom"]
    titles = [title for title in titles if title is not None and not title.endswith("once more")]
    assert titles == ["Real images, test split", "DCGAN, seed 0"]


def test_stale_and_unreadable_records_are_counted(make_results: Make) -> None:
    folder = make_results(models=("real", "vae", "dcgan"), seeds=(0,))
    info = store.read_run(folder)
    store.write_run(folder, {**info, "keys": [key for key in info["keys"] if "dcgan" not in key]})
    with open(folder / "records" / "9999.jsonl", "w") as file:
        file.write('{"half": ')
    page, _ = report(folder)
    assert "2 stale records are left out" in page.text
    assert "9999.jsonl:1: skipped" in page.text


def test_published_figures_stand_apart_and_are_labelled(written: Path) -> None:
    text = (written / "report.md").read_text(encoding="utf-8")
    measured, _, published = text.partition("## Published figures, never measured here")
    assert "StyleGAN2-ADA" in published
    assert "367.43" in published
    assert "StyleGAN2-ADA" not in measured


def test_the_terminal_table_fits_eighty_columns_and_takes_no_markup(make_results: Make) -> None:
    folder = make_results()
    info = store.read_run(folder)
    families = {**info["families"], "vae": {"family": "autoencoders", "title": "[red]VAE[/red]"}}
    store.write_run(folder, {**info, "families": families})
    console = Console(width=80, file=(held := io.StringIO()))
    console.print(render_terminal_table(folder))
    lines = held.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if "bits/dim" in line)
    assert head.split() == ["model", "FD", "cover.", "recall", "images/s", "bits/dim", "quality", "cover.", "speed"]
    fastest = next(line for line in lines if "Histogram" in line)
    assert fastest.rstrip().endswith("1.00 █")  # nothing is cut off at the right
    assert "[red]VAE" in held.getvalue()
    assert "Histogram" in held.getvalue()


def test_reports_load_no_torch(make_results: Make, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "import bench.report\n"
        "quick = [m for m in ('torch', 'matplotlib', 'pandas', 'rich') if m in sys.modules]\n"
        "assert not quick, quick\n"
        "bench.report.write_report(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "bench.report.render_terminal_table(pathlib.Path(sys.argv[1]))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(make_results(models=("real", "vae"))), str(tmp_path / "out")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

"""The exact table and the figure beside learned curves, from synthetic records."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.types import Draw
from bench import store
from bench.record import Measurement, Record
from bench.report import oracle_plots, render_terminal_table, write_report
from bench.report.clock import clocks
from bench.report.content import gather
from bench.report.exact_table import exact_curves, exact_table
from bench.report.grouping import make_sheet
from bench.report.names import way
from bench.report.oracle_plots import exact_picture
from bench.report.source import open_results
from bench.report.steps import lines
from bench.report.steps_findings import steps_findings
from bench.report.steps_plots import plot
from tests.report.conftest import FAMILIES, write_results

EXACT = {
    ("ddim", 0.0, None): (2.5, 0.8, 0.2),
    ("ddim", 1.0, None): (3.6, 1.5, 0.6),
    ("heun", 0.0, None): (18.0, 0.4, 0.02),
}
STEPS = (5, 10, 20)


def with_oracle(folder: Path, models: tuple[str, ...] = ("ddpm", "histogram", "real")) -> Path:
    """Synthetic results with an oracle's records beside them, made from the DDPM's."""
    write_results(folder, models=models)
    template = next(r for r in store.load(folder).records if r.cell.draw is not None and r.cell.model != "real")
    made: list[Record] = []
    for (sampler, eta, variance), values in EXACT.items():
        for steps, value in zip(STEPS, values, strict=True):
            draw = Draw(sampler, steps, eta, variance=variance, clip=False)
            cell = replace(template.cell, model="oracle_gaussian", seed=0, draw=draw)
            measured = (Measurement("fd_exact[pixels]", value, "", "lower", 1, "draw"),)
            made.append(
                replace(template, key=f"oracle-{draw.label()}", train_key="oracle", cell=cell, measured=measured)
            )
    for record in made:
        store.append(folder, record)
    info = store.read_run(folder)
    entry = {"family": "diffusion", "title": "Gaussian oracle", "source": "Wiener"}
    store.write_run(
        folder,
        {**info, "keys": [*info["keys"], *(r.key for r in made)], "families": FAMILIES | {"oracle_gaussian": entry}},
    )
    return folder


def test_the_table_has_samplers_down_and_steps_across(tmp_path: Path) -> None:
    sheet = make_sheet(open_results(with_oracle(tmp_path / "r")), "digits")
    table = exact_table(sheet)
    assert table is not None
    assert [c.title for c in table.columns] == ["sampler", "S=5", "S=10", "S=20"]
    assert [[d.text for d in line.data] for line in table.lines] == [
        ["DDIM eta 0", "2.50", "0.800", "0.200"],
        ["DDIM eta 1", "3.60", "1.50", "0.600"],
        ["Heun", "18.0", "0.400", "0.0200"],
    ]
    best = [[d.text for d in line.data if d.best] for line in table.lines]
    assert best == [["2.50"], [], ["0.400", "0.0200"]]
    assert {label: sorted(curve) for label, curve in exact_curves(sheet).items()} == {
        label: list(STEPS) for label in ("DDIM eta 0", "DDIM eta 1", "Heun")
    }


def test_it_stands_in_the_terminal_the_page_and_the_markdown(tmp_path: Path) -> None:
    from rich.console import Console

    folder = with_oracle(tmp_path / "r", ("histogram", "real", "vae", "ddpm"))
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(render_terminal_table(folder))
    told = console.export_text()
    assert "Exact Fréchet distance by sampler and steps (digits)" in told
    assert any(line.split() == ["DDIM", "eta", "1", "3.60", "1.50", "0.600"] for line in told.splitlines())
    out = tmp_path / "out"
    write_report(folder, out)
    page, markdown = (out / "index.html").read_text(), (out / "report.md").read_text()
    for text in (page, markdown):
        assert "Exact Fréchet distance by sampler and steps" in text
        assert "Learned against exact: what steps buy" in text
    assert (out / "figures" / "exact-digits.png").exists()


def test_without_an_oracle_there_is_neither_table_nor_figure(tmp_path: Path) -> None:
    sheet = make_sheet(open_results(write_results(tmp_path / "r")), "digits")
    assert exact_table(sheet) is None
    assert exact_picture("exact", sheet) is None


def test_without_a_trained_model_there_is_a_table_and_a_figure_of_exact_numbers_alone(tmp_path: Path) -> None:
    sheet = make_sheet(open_results(with_oracle(tmp_path / "r", ("histogram", "real"))), "digits")
    assert exact_table(sheet) is not None
    picture = exact_picture("exact", sheet)
    assert picture is not None
    assert picture.title == "Exact: what steps buy a perfect network"


def test_findings_of_exact_numbers_come_first_and_need_no_interval(tmp_path: Path) -> None:
    sheet = make_sheet(open_results(with_oracle(tmp_path / "r")), "digits")
    told = steps_findings(sheet)
    assert told[0].startswith("Exact numbers (Gaussian oracle)")
    [few] = [text for text in told if text.startswith("Exact. Few steps")]
    assert "as expected, at S=5 (next is eta 1, 1.44×), S=10 (next is eta 1, 1.88×), S=20 (next is eta 1, 3.00×)" in few
    first_sampled = next(i for i, text in enumerate(told) if text.startswith("Few steps"))
    assert all(text.startswith("Exact") for text in told[:first_sampled])
    assert [text for text in told if text.startswith("Learned against exact")]


def test_an_oracles_sampled_numbers_make_no_sentence_clock_triangle_or_axis(tmp_path: Path) -> None:
    alone = gather(open_results(with_oracle(tmp_path / "a", ("histogram", "real")))).sections[0]
    assert alone.steps is not None
    assert all(text.startswith("Exact") for text in alone.steps.findings)
    assert [picture.name for picture in alone.steps.pictures] == ["exact-digits"]
    assert alone.placed == ()
    assert alone.formulas == alone.missing == ()
    assert not any("Gaussian oracle" in text for text in alone.findings)
    mixed = gather(open_results(with_oracle(tmp_path / "m", ("histogram", "real", "vae", "ddpm")))).sections[0]
    assert mixed.steps is not None
    assert mixed.steps.pictures[0].name == "exact-digits"
    assert "Gaussian oracle" not in {row.title for row, _ in mixed.placed}
    assert "Gaussian oracle" not in {grid.title.split(" · ")[0] for grid in mixed.grids}
    assert all(line.more for line in mixed.main.lines if line.data[0].text.startswith("Gaussian oracle"))
    assert not any("Gaussian oracle" in text for text in mixed.formulas)
    assert {clock.title for clock in clocks(mixed.sheet)} == {"DDPM"}
    assert not any("Gaussian oracle" in line.label for line in lines(mixed.sheet))


def test_the_figure_has_the_mean_over_seeds_beside_every_exact_eta(tmp_path: Path, monkeypatch: Any) -> None:
    painted: dict[str, dict[str, list[float]]] = {}

    def spy(canvas: Any, held: Any, *rest: Any) -> None:
        painted[canvas.get_title()] = {line.label: [p.score.value for p in points] for line, points in held}
        plot(canvas, held, *rest)
        painted[str(len(painted))] = painted.pop(canvas.get_title())

    sheet = make_sheet(open_results(with_oracle(tmp_path / "r")), "digits")
    monkeypatch.setattr(oracle_plots, "plot", spy)
    picture = exact_picture("exact", sheet)
    assert picture is not None
    assert "the mean of 2 seeds" in picture.caption
    assert picture.svg, "which paints it"
    left, right = painted.values()
    assert left == {"DDIM eta 0": [2.5, 0.8, 0.2], "DDIM eta 1": [3.6, 1.5, 0.6]}
    for eta in (0.0, 1.0):
        drawn = {
            r.draw.steps: r.value(sheet.quality)
            for r in sheet.rows
            if r.draw is not None and r.draw.sampler == "ddim" and r.draw.eta == eta and not r.model.is_oracle
        }
        assert right[f"DDIM eta {eta:g}"] == [drawn[s] for s in sorted(s for s in drawn if s is not None)]
        assert len(drawn) == 5


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (Draw("ddim", 5, 0.5), "DDIM eta 0.5"),
        (Draw("ddim", 5, variance="sigma_hat", spacing="trailing"), "DDIM sigma-hat, trailing"),
        (Draw("ddpm", 5), "ancestral"),
        (Draw("dpmpp_2m", 5, spacing="log_snr", clip=False), "DPM-Solver++, log_snr"),
        (Draw("heun", 5, options={"s_churn": 4}), "Heun, s_churn=4"),
        (Draw("mine", 5), "mine"),
    ],
)
def test_a_way_to_draw_is_named_without_its_steps(draw: Draw, expected: str) -> None:
    assert way(draw) == expected

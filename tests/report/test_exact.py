"""The exact table and the figure beside learned curves, from synthetic records."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.types import Draw
from bench import store
from bench.record import Measurement, Record
from bench.report import render_terminal_table, write_report
from bench.report.exact_table import exact_curves, exact_table, way
from bench.report.grouping import make_sheet
from bench.report.oracle_plots import learned_against_exact
from bench.report.source import open_results
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
        ["DDIM η=0", "2.50", "0.800", "0.200"],
        ["DDIM η=1", "3.60", "1.50", "0.600"],
        ["Heun", "18.0", "0.400", "0.0200"],
    ]
    best = [[d.text for d in line.data if d.best] for line in table.lines]
    assert best == [["2.50"], [], ["0.400", "0.0200"]]
    assert {label: sorted(curve) for label, curve in exact_curves(sheet).items()} == {
        label: list(STEPS) for label in ("DDIM η=0", "DDIM η=1", "Heun")
    }


def test_it_stands_in_the_terminal_the_page_and_the_markdown(tmp_path: Path) -> None:
    from rich.console import Console

    folder = with_oracle(tmp_path / "r")
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(render_terminal_table(folder))
    told = console.export_text()
    assert "Exact Fréchet distance by sampler and steps (digits)" in told
    assert any(line.split() == ["DDIM", "η=1", "3.60", "1.50", "0.600"] for line in told.splitlines())
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
    assert learned_against_exact("exact", sheet) is None


def test_without_a_trained_model_there_is_a_table_and_no_figure(tmp_path: Path) -> None:
    sheet = make_sheet(open_results(with_oracle(tmp_path / "r", ("histogram", "real"))), "digits")
    assert exact_table(sheet) is not None
    assert learned_against_exact("exact", sheet) is None


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (Draw("ddim", 5, 0.5), "DDIM η=0.5"),
        (Draw("ddim", 5, variance="sigma_hat", spacing="trailing"), "DDIM σ̂ trailing"),
        (Draw("ddpm", 5), "ancestral"),
        (Draw("dpmpp_2m", 5, spacing="log_snr", clip=False), "DPM-Solver++ log_snr"),
        (Draw("heun", 5, options={"s_churn": 4}), "Heun s_churn=4"),
        (Draw("mine", 5), "mine"),
    ],
)
def test_a_way_to_draw_is_named_without_its_steps(draw: Draw, expected: str) -> None:
    assert way(draw) == expected

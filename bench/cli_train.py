"""`trilemma train`: the models of a matrix trained and not measured, by one process or by those of a torchrun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from baselines.types import Budget
from bench.cli_common import overrides, stoppable

HELP = """Train the models of a matrix without measuring them; under torchrun, each by all of its processes together.

`trilemma run` with the same options then finds them trained.

Example:

    torchrun --nproc-per-node 2 -m bench train mnist --model ddpm
"""


def train(
    context: typer.Context,
    matrix: Annotated[str, typer.Argument(help="A shipped matrix or a TOML file.")] = "quick",
    model: Annotated[list[str] | None, typer.Option(help="Only this model: name, dotted module or .py file.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Instead of the matrix's data sets.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Instead of the matrix's seeds.")] = None,
    budget: Annotated[str | None, typer.Option(help="Training images (400000, 400k).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="model.key=value, the value as in TOML.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the records; results/MATRIX by default.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; TRILEMMA_DATA by default.")] = None,
) -> None:
    """Train the models of a matrix without measuring them; under torchrun, each by all of its processes together."""
    from bench import api

    sys.path.insert(0, str(Path.cwd()))
    parsed, named = None if budget is None else Budget.parse(budget), model or []
    settings = overrides(set_ or [], named)
    options = api.Options(
        matrix, named, dataset or (), seed or (), parsed, device, settings, results=results, data_dir=data_dir
    )
    with stoppable():
        left_out = api.train(options, Console(), together=context.obj is True)
    if left_out:
        print(f"{left_out} trainings were left out: `trilemma run` does each by one process", file=sys.stderr)
    if context.obj is True:
        from bench.team import Joined

        Joined.leave(int(bool(left_out)))
    raise typer.Exit(int(bool(left_out)))

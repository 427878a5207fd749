"""The command `trilemma evaluate`: anyone's samples against real images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from baselines.errors import UserError
from bench.cli_common import check_file

if TYPE_CHECKING:
    from bench.evaluation import Evaluation
    from bench.metrics.ranks import Ranks

HELP = """Score samples against real images that their model has not seen.

Both are a folder of images, a .zip, a .npz or .npy file of uint8 pixels, or a data set by name (its test split);
or both are features that you computed: a .npz file with a float array `features`, or a 2-D float .npy.

Examples:

    trilemma evaluate --samples samples/ --reference mnist

    trilemma evaluate --samples fake.npz --reference real.zip --extractor inception --weights pt_inception.pth

    trilemma evaluate --samples fake.npy --reference digits --metric fd --metric recall --json scores.json

    torchrun --standalone --nproc-per-node 8 -m bench evaluate --samples samples/ --reference real.zip
"""


def evaluate(
    context: typer.Context,
    samples: Annotated[str, typer.Option(help="Images to score.")],
    reference: Annotated[str, typer.Option(help="Held-out real images, or a data set by name.")],
    train: Annotated[
        str | None, typer.Option(help="What the model learned from: makes the floor. A data set brings its own.")
    ] = None,
    extractor: Annotated[
        str | None,
        typer.Option(
            "--extractor",
            "--features",
            help="digits-cnn, mnist-cnn, inception, vgg16, clip, dinov2, pixels8x8, or your own as mine.py:NAME.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the extractor's network, .pth or .safetensors.")
    ] = None,
    extractor_name: Annotated[str | None, typer.Option(help="What ready-made features are features of.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; see `trilemma list metrics`.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; TRILEMMA_DATA by default.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where features are kept for the next time.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no features.")] = False,
    levels: Annotated[
        int | None,
        typer.Option(
            min=2, max=256, help="Levels of a pixel, of arrays that do not say it; the reference's by default."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of resampling.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that extract features side by side.")] = 1,
    json_: Annotated[Path | None, typer.Option("--json", help="Write all of it to this file.")] = None,
) -> None:
    """Score samples against real images."""
    from bench.device import usable_device
    from bench.evaluation import evaluate as score

    check_file("--json", json_)
    ranks: Ranks | None = context.obj
    if ranks is not None and processes > 1:
        raise UserError(f"--processes {processes}: torchrun shares the extraction out already; leave it out")
    device = usable_device(device) if ranks is None else ranks.take_device(device)
    sys.path.insert(0, str(Path.cwd()))  # `--extractor my_module:NAME` means the module in the user's folder
    with _Bar(Console(stderr=True)) as bar:
        found = score(
            samples,
            reference,
            train=train,
            extractor=extractor,
            extractor_name=extractor_name,
            weights=weights,
            metrics=metric or (),
            device=device,
            data_dir=data_dir,
            cache=cache or not no_cache,
            levels=levels,
            seed=seed,
            processes=processes,
            sharing=None if ranks is None else ranks.sharing(extractor, weights, device),
            progress=bar.progress,
        )
    console = Console()
    console.print(_table(found))
    for m in found.measured:
        if m.note:
            console.print(f"{m.metric}: {m.note}", markup=False, soft_wrap=True, highlight=False)
    for name, reason in found.skipped.items():
        console.print(f"{name}: not taken: {reason}", markup=False, soft_wrap=True)
    if found.floor_reason:
        console.print(f"no floor: {found.floor_reason}", markup=False, soft_wrap=True)
    if json_ is not None:  # last, so that a full disk costs the file and not the numbers
        json_.write_text(json.dumps(found.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if not found.measured:
        print("error: no metric could be taken", file=sys.stderr)
        raise typer.Exit(1)


def _table(found: Evaluation) -> Table:
    real, extractor = found.about["reference"], found.about["extractor"]
    n = f"{found.about['samples']['images']:,} samples against {real['images']:,} real images"
    table = Table(
        Column("metric", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in ("value", "95 % interval", "floor")),
        title=escape(f"{n} of {real['name']}, in the features of {extractor['name']}"),
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
    )
    for m in found.measured:
        better = {"lower": " ↓", "higher": " ↑", "none": ""}[m.better]
        interval = "" if m.low is None or m.high is None else f"{m.low:.3g} – {m.high:.3g}"
        floor = f"{found.floor[m.metric]:.3g}" if m.metric in found.floor else ""
        table.add_row(escape(m.metric) + better, f"{m.value:.5g}", interval, floor)
    return table


class _Bar:
    """One line of progress, made anew for each phase."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.phase, self.task = "", TaskID(0)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def progress(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` images."""
        if phase != self.phase:
            if self.phase:
                self.bar.remove_task(self.task)
            self.phase, self.task = phase, self.bar.add_task(phase, total=total)
        self.bar.update(self.task, completed=done, total=total)

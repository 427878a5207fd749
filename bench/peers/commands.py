"""Programs as people start them: how soon a command line answers, how soon a library is there, how soon a report is."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.peers.contest import Contender, Contest, Entry, FromChild, installed

GROUP = "Start and report"
RECORDS = 1000
_OURS = "trilemma-bench"


class Programs:
    """Runs programs one at a time, each in a process of its own.

    Args:
        folder: where they run and where what they print is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._launcher: subprocess.Popen[str] | None = None

    def python(self, *arguments: str) -> FromChild:
        """Run Python with these arguments.

        Raises:
            RuntimeError: if it fails, with the end of what it printed.
        """
        launcher = self._launcher or self._launched()
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        out = self.folder / "printed.txt"
        asked = {"arguments": [sys.executable, *arguments], "folder": str(self.folder), "out": str(out)}
        print(json.dumps(asked), file=launcher.stdin, flush=True)
        status, peak = json.loads(launcher.stdout.readline())
        text = out.read_text(encoding="utf-8", errors="replace")
        if status != 0:
            raise RuntimeError(f"exit status {status}: {text[-300:]}")
        return FromChild(text, peak)

    def _launched(self) -> subprocess.Popen[str]:
        """At first use: only then is this process held to its core, which children inherit."""
        file = Path(__file__).with_name("launcher.py")
        here = str(Path(__file__).parents[2])  # so that a checkout runs itself from any folder
        path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH")) if part)
        self._launcher = subprocess.Popen(
            [sys.executable, "-S", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        weakref.finalize(self, _end, self._launcher)
        return self._launcher


def _end(launcher: subprocess.Popen[str]) -> None:
    launcher.communicate()  # closes its input, which ends it


def _contenders(programs: Programs, ways: Mapping[str, tuple[str, str, tuple[str, ...]]]) -> list[Contender]:
    """ways: name -> (distribution, module that must be there, arguments of Python)."""
    return [
        Contender(name, partial(programs.python, *arguments), package)
        for name, (package, module, arguments) in ways.items()
        if installed(module)
    ]


HELP = "Command line: --help"
IMPORT = "Import of the package"
EVALUATE = "Import of what evaluates images"
PAGE = f"HTML page of {RECORDS:,} results, from a shell"


def start(folder: Path) -> Contest:
    """`--help`, which every user asks for and shells complete from."""
    ways = {
        "trilemma --help": (_OURS, "bench", ("-m", "bench", "--help")),
        "benchopt --help": ("benchopt", "benchopt", ("-m", "benchopt", "--help")),
        "fidelity --help": ("torch-fidelity", "torch_fidelity", ("-m", "torch_fidelity.fidelity", "--help")),
        "pytorch-fid --help": ("pytorch-fid", "pytorch_fid", ("-m", "pytorch_fid", "--help")),
    }
    ours, *peers = _contenders(Programs(folder), ways)
    return Contest(HELP, GROUP, ours, tuple(peers), rounds=6)


def plain_import(folder: Path) -> Contest:
    """The name alone: ours loads torch when something is first drawn, trained or evaluated."""
    names = {"bench": _OURS, "benchopt": "benchopt", "pythae": "pythae", "torchmetrics": "torchmetrics"}
    ways = {f"import {name}": (package, name, ("-c", f"import {name}")) for name, package in names.items()}
    ours, *peers = _contenders(Programs(folder), ways)
    ours = dataclasses.replace(ours, note="loads next to nothing until something is used, torch least of all")
    return Contest(IMPORT, GROUP, ours, tuple(peers), rounds=6)


def evaluating_import(folder: Path) -> Contest:
    """The function that evaluates, with all that it imports."""
    ways = {
        "trilemma": (_OURS, "bench", ("-c", "from bench import evaluate")),
        "torch-fidelity": ("torch-fidelity", "torch_fidelity", ("-c", "from torch_fidelity import calculate_metrics")),
        "clean-fid": ("clean-fid", "cleanfid", ("-c", "from cleanfid import fid")),
        "pytorch-fid": ("pytorch-fid", "pytorch_fid", ("-c", "from pytorch_fid import fid_score")),
        "torchmetrics": (
            "torchmetrics",
            "torchmetrics",
            ("-c", "from torchmetrics.image.fid import FrechetInceptionDistance"),
        ),
    }
    ours, *peers = _contenders(Programs(folder), ways)
    return Contest(EVALUATE, GROUP, ours, tuple(peers), rounds=6)


def page(folder: Path) -> Contest:
    """A thousand results with eleven numbers each, no samples: benchopt keeps none."""
    from bench.peers.many_records import write_many

    programs = Programs(folder)
    write_many(folder / "results", RECORDS, samples=False)
    benchmark = write_benchmark(folder / "benchmark")
    file = benchmark / "outputs" / "results.parquet"
    ours = Contender(
        "trilemma report",
        partial(programs.python, "-m", "bench", "report", str(folder / "results"), "-o", str(folder / "report")),
        _OURS,
        note="its page, tables and figures open offline",
    )
    peer = Contender(
        "benchopt plot",
        partial(programs.python, "-m", "benchopt", "plot", str(benchmark), "-f", str(file), "--no-display"),
        "benchopt",
        note="its page leaves the drawing to the browser, with libraries that come by network",
    )
    return Contest(PAGE, GROUP, ours, (peer,), rounds=6)


def write_benchmark(folder: Path) -> Path:
    """A benchopt benchmark with as many results: 55 solvers, as we have models, with 3 repetitions of 6 stops."""
    import numpy as np
    import pandas as pd

    (folder / "outputs").mkdir(parents=True)
    for part in ("solvers", "datasets"):
        (folder / part).mkdir()
    (folder / "objective.py").write_text(_OBJECTIVE, encoding="utf-8")
    rng, rows = np.random.default_rng(0), []
    metrics = ("fd", "is", "kid", "precision", "recall", "density", "coverage", "latency", "speed", "nfe", "memory")
    for solver in range(RECORDS // 18):
        for seed in range(3):
            for stop in range(1, 7):
                numbers = {
                    f"objective_{name}": float(value) for name, value in zip(metrics, rng.random(11), strict=True)
                }
                rows.append(
                    {
                        "objective_name": "Trilemma",
                        "dataset_name": "digits",
                        "solver_name": f"model{solver}",
                        "stop_val": stop,
                        "idx_rep": seed,
                        "time": float(rng.random()),
                        **numbers,
                    }
                )
    pd.DataFrame(rows).to_parquet(folder / "outputs" / "results.parquet")
    return folder


_OBJECTIVE = """from benchopt import BaseObjective


class Objective(BaseObjective):
    name = "Trilemma"

    def set_data(self):
        pass

    def get_objective(self):
        return {}

    def evaluate_result(self, **result):
        return {}

    def get_one_result(self):
        return {}
"""

ENTRIES: tuple[Entry, ...] = (
    Entry(HELP, GROUP, start),
    Entry(IMPORT, GROUP, plain_import),
    Entry(EVALUATE, GROUP, evaluating_import),
    Entry(PAGE, GROUP, page, ("benchopt", "pyarrow")),
)

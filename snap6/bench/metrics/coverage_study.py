"""How often the printed 95 % intervals hold a known truth: `python -m bench.metrics.coverage_study -o FILE`.

The file is what the report shows beside a calibration run; it names the command, the date and the versions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from threadpoolctl import threadpool_limits

from baselines.noise import derive_seed
from bench import provenance
from bench.metrics import coverage_cases
from bench.metrics.coverage_cases import Case, Trial
from bench.metrics.frechet import Frechet
from bench.metrics.frechet_infinity import FrechetInfinity
from bench.metrics.inception_score import InceptionScore
from bench.metrics.kernel import Kernel
from bench.stats import CONFIDENCE

SCHEMA = 1
COMMAND = "python -m bench.metrics.coverage_study"
SHOWN = Path(__file__).parents[1] / "report" / "data" / "interval_coverage.json"
"""The committed study, which the report shows."""
MEASURED = (Frechet(), FrechetInfinity(), Kernel(), InceptionScore())


@dataclass(frozen=True)
class Coverage:
    """One interval in one case: how often it was given, how often it held the truth, how wide it was."""

    interval: str
    case: str
    size: str
    truth: float
    repetitions: int
    refused: int  # repetitions in which the metric gave no interval
    covered: int  # of the others, those whose interval held the truth
    width: float | None  # mean, None if none was given


def count(case: Case, trials: Iterable[Trial]) -> Iterator[Coverage]:
    """Sum up the repetitions of one case, interval by interval."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.interval, []).append(trial)
    for interval, found in groups.items():
        given = [(t.truth, t.low, t.high) for t in found if t.low is not None and t.high is not None]
        yield Coverage(
            interval=interval,
            case=case.name,
            size=case.size,
            truth=found[0].truth,
            repetitions=len(found),
            refused=len(found) - len(given),
            covered=sum(low <= truth <= high for truth, low, high in given),
            width=sum(high - low for _, low, high in given) / len(given) if given else None,
        )


def repeat(case: Case, repetitions: int) -> list[Coverage]:
    """Every interval of one case, over repetitions times the case's weight; seeded, so that it can be done again."""
    with threadpool_limits(1):
        seeds = [derive_seed("coverage", case.name, case.size, i) for i in range(repetitions * case.weight)]
        return list(count(case, [trial for seed in seeds for trial in case.trials(seed)]))


def study(cases: Sequence[Case], repetitions: int, processes: int = 1) -> Iterator[tuple[Case, list[Coverage]]]:
    """All cases, each told as soon as it is done."""
    if processes == 1:
        yield from ((case, repeat(case, repetitions)) for case in cases)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, context) as pool:
        waiting = {pool.submit(repeat, case, repetitions): case for case in cases}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def document(rows: Iterable[Coverage], repetitions: int) -> dict[str, Any]:
    """The file's content, rows in a fixed order."""
    ordered = sorted(rows, key=lambda r: (r.interval, r.case, _numbers(r.size)))
    return {
        "schema": SCHEMA,
        "command": f"{COMMAND} --repetitions {repetitions}",
        "date": datetime.now(UTC).date().isoformat(),
        "nominal": CONFIDENCE,
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "metrics": {metric.name: metric.version for metric in MEASURED},
        },
        "rows": [asdict(row) for row in ordered],
    }


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.replace(",", "").split() if word.isdecimal()]


def main() -> None:
    """Run the study and write its file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=SHOWN)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--processes", type=int, default=provenance.cores())
    arguments = parser.parse_args()
    began, cases, rows = time.monotonic(), list(coverage_cases.cases()), []
    for done, (case, found) in enumerate(study(cases, arguments.repetitions, arguments.processes), start=1):
        rows += found
        spent = time.monotonic() - began
        told = ", ".join(f"{r.interval} {r.covered}/{r.repetitions - r.refused}" for r in found)
        print(f"{done}/{len(cases)} after {spent:.0f} s: {case.name}, {case.size}: {told}", file=sys.stderr)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document(rows, arguments.repetitions), indent=1, allow_nan=False)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(arguments.out)


if __name__ == "__main__":
    main()

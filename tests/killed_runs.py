"""Runs a matrix again and again in one process while its cells are killed at random; prints what came of it as JSON.

    python -m tests.killed_runs MATRIX KILLS SEED SEEDS

The matrix is run with seeds 0 to SEEDS - 1; when all is done and not enough was killed, with one more.
Each cell's process is sent SIGKILL after a random time, shorter or longer than it lives. Afterwards nothing is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import bench
from bench import store
from bench.executors import local


def main(matrix: str, kills: int, seed: int, seeds: int) -> dict[str, Any]:
    """Until so many have been killed, run; then once more in peace."""
    start = local._start
    left = [kills]
    randomly = random.Random(seed)
    phases: Counter[str] = Counter()

    def watched(*arguments: Any) -> Any:
        connection, item = start(*arguments)
        pid = item.pid

        def kill() -> None:
            if left[0] > 0:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    left[0] -= 1

        if randomly.random() < 0.6:
            timer = threading.Timer(randomly.choice((0.05, 0.3, 1.0)) * randomly.random(), kill)
            timer.daemon = True
            timer.start()
        return connection, item

    local._start = watched
    results = Path("results") / Path(matrix).stem
    finished: dict[str, Any] = {}
    lost: list[str] = []
    rounds = 0
    while rounds < 20 * kills + 1:
        peace = left[0] <= 0
        if peace:
            local._start = start
        frame = bench.run(matrix, seeds=list(range(seeds)))
        rounds += 1
        found = {record.key: record for record in store.load(results).records}
        lost += [key for key, record in finished.items() if found.get(key) != record]
        finished |= {key: record for key, record in found.items() if record.status == "ok"}
        phases.update(record.error.splitlines()[0] for record in frame.attrs["failed"])
        if peace:
            break
        seeds += not frame.attrs["failed"]
    last = store.load(results)
    return {
        "killed": kills - left[0],
        "rounds": rounds,
        "seeds": seeds,
        "lost": lost,
        "failed": dict(phases),
        "last": {record.cell.label(): record.status for record in last.records},
        "problems": last.problems,
        "values": {
            f"{record.cell.label()} {m.metric}": m.value
            for record in last.records
            for m in record.measured
            if m.metric.startswith(("bits_per_dim", "fd["))
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:5]))))

"""What the benchmarks share: contenders timed in turns, so that a slow spell of the machine touches all of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from bench.measure.memory import HostPeak, host_peak

Compare = Callable[..., dict[str, Any]]

_ENOUGH = 8  # rounds for quartiles to mean something


@pytest.fixture
def compare(benchmark: Any) -> Compare:
    """compare(group, contenders, rounds, table): results by name; seconds, ratios and memory go into the record.

    The first contender is ours. A ratio is the median over rounds of (theirs / ours) within the round, its spread the
    quartiles. Memory is the peak beyond what was resident before, in a round of its own. table: README's.
    The gate, which judges by raw rounds, asks for more than one of ours (TRILEMMA_GATE_ROUNDS).
    """

    def run(
        group: str,
        contenders: Mapping[str, Callable[[], Any]],
        rounds: int = 5,
        table: str = "metrics",
    ) -> dict[str, Any]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        results, peaks = {}, {}
        for name, work in contenders.items():  # this round also warms up
            results[name], peak = host_peak(work)
            peaks[name] = peak.rise_bytes if isinstance(peak, HostPeak) else None
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, work in contenders.items():
                begin = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - begin)
        torch.set_num_threads(threads)
        ours, *others = contenders
        benchmark.group = group
        benchmark.extra_info["ours"] = ours
        benchmark.extra_info["seconds"] = {name: statistics.median(values) for name, values in seconds.items()}
        benchmark.extra_info["peak_bytes"] = peaks
        ratios = {name: [t / o for t, o in zip(seconds[name], seconds[ours], strict=True)] for name in others}
        benchmark.extra_info["table"] = table
        benchmark.extra_info["ratio"] = {name: statistics.median(values) for name, values in ratios.items()}
        if rounds >= _ENOUGH:
            quartiles = {name: statistics.quantiles(values, n=4, method="inclusive") for name, values in ratios.items()}
            benchmark.extra_info["spread"] = {name: [low, high] for name, (low, _, high) in quartiles.items()}
        benchmark.pedantic(contenders[ours], rounds=int(os.environ.get("TRILEMMA_GATE_ROUNDS", "1")))
        return results

    return run

"""Batch-1 latency: the cold first call apart, then quantiles of warm calls, beside the sampler's own limit.

The limit is (time of one bare network forward) x (executed NFE): what the network alone would take. Draws and
bare forwards are timed in turns, so that a slow spell of the machine touches both sides of the ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from baselines.types import Progress
from bench.measure.clock import Clock, Effort, Timing, few, quantile
from bench.measure.result import Measured
from bench.measure.workload import Calls, Workload
from bench.record import Measurement

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_BLOCK = 50  # bare forwards timed as one: queued back to back on a GPU, as a sampler queues them


def cold_call(workload: Workload, clock: Clock) -> Measured:
    """`latency_s[cold]`, of the first `sample` call: it must be the first of this process on this model."""
    if workload.refusal:
        return Measured(skipped={"latency_s[cold]": workload.refusal})
    _, timing = clock.time(lambda: workload.images(1))
    note = "first call, with all that is built or tuned once"
    protocol = workload.protocol(1)
    cold = Measurement("latency_s[cold]", timing.wall_s, "s", "lower", 1, "draw", protocol=protocol, note=note)
    return Measured((cold,))


@dataclass
class Limit:
    """Times bare forwards in turns with the draws they are compared with."""

    calls: Calls
    clock: Clock
    forwards_s: list[float] = field(default_factory=list)  # seconds of one bare forward
    draws_s: list[float] = field(default_factory=list)  # of the draw timed just before it

    def after(self, draw: Timing) -> None:
        """Time a block of bare forwards, right after this draw; nothing where one does not stand for all."""
        if self.calls.unlike is not None:
            return
        block = min(self.calls.count, _BLOCK)
        _, timing = self.clock.time(lambda: self.calls.forward(block))
        self.forwards_s.append(timing.wall_s / block)
        self.draws_s.append(draw.wall_s)

    def measured(self, name: str, protocol: Mapping[str, Any]) -> Measured:
        """`limit_s[name]` and `limit_ratio[name]`: the medians of forward x NFE and of draw / (forward x NFE)."""
        metrics = f"limit_s[{name}]", f"limit_ratio[{name}]"
        if self.calls.unlike is not None or not self.draws_s:
            return Measured(skipped=dict.fromkeys(metrics, self.calls.unlike or "no draw was timed beside it"))
        limits_s = [forward_s * self.calls.count for forward_s in self.forwards_s]
        if min(limits_s) <= 0:
            return Measured(skipped=dict.fromkeys(metrics, "a bare forward is below the clock's resolution"))
        ratios = [draw_s / limit_s for draw_s, limit_s in zip(self.draws_s, limits_s, strict=True)]
        note = f"one bare forward x {self.calls.count} executed calls"
        return Measured(
            (
                _quantile(metrics[0], limits_s, 0.5, "s", protocol, note),
                _quantile(metrics[1], ratios, 0.5, "", protocol, "draw / limit, timed in turns"),
            ),
            raw={f"forward_s[{name}]": self.forwards_s},
        )


def latency(
    workload: Workload,
    calls: Calls,
    clock: Clock,
    effort: Effort | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Measured:
    """`latency_s[p50|p90|p99]` at batch 1, on a GPU `latency_device_s[p50]` too, `limit_s[b1]`, `limit_ratio[b1]`.

    Args:
        workload: already warm: at least one full-length call was made.
        calls: the network calls of one such call, by `workload.observe`.
        clock: of the workload's device.
        effort: how often to repeat; by default for about 1 s, with the bare forwards.
        progress: told (phase, repetitions done, at most).
    """
    effort = effort or Effort()
    if workload.refusal:
        metrics = [*(f"latency_s[{p}]" for p in QUANTILES), "limit_s[b1]", "limit_ratio[b1]"]
        return Measured(skipped=dict.fromkeys(metrics, workload.refusal))
    limit = Limit(calls, clock)
    timings: list[Timing] = []
    walls_s: list[float] = []
    begin = clock.read()
    while not effort.enough(walls_s, clock.read() - begin):
        _, timing = clock.time(lambda: workload.images(1, first=len(timings)))
        timings.append(timing)
        walls_s.append(timing.wall_s)
        limit.after(timing)
        progress("latency", len(timings), effort.max_reps)
    return _summary(timings, limit, workload.protocol(1))


def _summary(timings: list[Timing], limit: Limit, protocol: Mapping[str, Any]) -> Measured:
    walls_s = [t.wall_s for t in timings]
    device_s = [t.device_s for t in timings if t.device_s is not None]
    measurements = [_quantile(f"latency_s[{p}]", walls_s, q, "s", protocol) for p, q in QUANTILES.items()]
    skipped = {}
    raw = {"latency_s": walls_s}
    if device_s:
        note = "between CUDA events"
        measurements.append(_quantile("latency_device_s[p50]", device_s, 0.5, "s", protocol, note))
        raw["latency_device_s"] = device_s
    else:
        skipped["latency_device_s[p50]"] = "no GPU"
    beside = limit.measured("b1", protocol)
    return Measured((*measurements, *beside.measurements), {**skipped, **beside.skipped}, {**raw, **beside.raw})


def _quantile(
    metric: str, values: list[float], q: float, unit: str, protocol: Mapping[str, Any], note: str = ""
) -> Measurement:
    value, low, high = quantile(values, q)
    notes = "; ".join(filter(None, (note, few(len(values), q))))
    return Measurement(metric, value, unit, "lower", len(values), "draw", low, high, protocol=protocol, note=notes)

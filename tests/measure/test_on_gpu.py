"""What a GPU's numbers need said of them, on numbers as a GPU's pass gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.contract import GenerativeModel, Given, Noise
from baselines.types import Budget, Draw
from bench.job import Job, Setup
from bench.measure.on_gpu import completed, precision, queued_share
from bench.measure.result import Measured
from bench.measure.training import training_cost
from bench.record import Cell, Measurement

HELD = "nvidia-smi lists no process of this id (a container hides it)"


def measured(*, process: bool) -> Measured:
    names = ["gpu_peak_allocated_bytes", "gpu_peak_reserved_bytes"] + ["gpu_process_bytes"] * process
    numbers = tuple(Measurement(name, 100.0, "B", "lower", 1, "draw", protocol={"batch": 7}) for name in names)
    return Measured(numbers, {} if process else {"gpu_process_bytes": HELD}, {"latency_s": [1.0]})


def test_a_cpus_measurements_stay_as_they_are() -> None:
    plain = Measured(skipped={"gpu_process_bytes": "no GPU"})
    assert completed(plain, Draw(options={"graph": True})) is plain


def test_under_a_graph_no_peak_of_allocated_memory_is_told() -> None:
    found = completed(measured(process=True), Draw(options={"graph": True}))
    assert [m.metric for m in found.measurements] == ["gpu_peak_reserved_bytes", "gpu_process_bytes"]
    assert "torch counts none of it as allocated" in found.skipped["gpu_peak_allocated_bytes"]
    assert found.raw == {"latency_s": [1.0]}
    assert completed(measured(process=True), Draw(options={"graph": False})) == measured(process=True)


def test_where_the_driver_hides_the_process_the_whole_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 << 30, 8 << 30))
    found = completed(measured(process=False), Draw())
    assert found.value("gpu_device_bytes") == 5 << 30
    assert found.measurements[-1].protocol == {"batch": 7}
    assert "all processes" in found.measurements[-1].note
    assert found.skipped == {"gpu_process_bytes": HELD}


def test_the_share_that_is_waited_for_elsewhere_is_bounded_by_the_steps() -> None:
    assert queued_share(0) == queued_share(2_000) == 1.0
    assert queued_share(20_000) == pytest.approx(0.1)


def test_a_training_on_a_gpu_says_how_much_its_rate_may_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(GenerativeModel):
        def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
            raise NotImplementedError

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    state = dict.fromkeys(("seconds", "cpu_seconds", "iterating_seconds", "iterating_cpu_seconds"), 1.0)
    state |= {"images": 1000, "step": 8_000}
    notes = {}
    for device in ("cpu", "cuda"):
        job = Job(Cell("m", "digits", Budget(images=1000), 0), "", "", 1, Setup(Path(), device), {})
        cost = training_cost(Model(), state, job)
        notes[device] = {m.metric: m.note for m in cost.measurements}
    assert "up to 0.25 of the work was queued on the GPU" in notes["cuda"]["training_images_per_s"]
    assert "queued" not in notes["cuda"]["training_s"], "which is of the whole, waiting included"
    assert not any("queued" in note for note in notes["cpu"].values())


def test_the_precision_of_float32_is_what_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, name in ((True, "TF32"), (False, "float32")):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        assert precision()["convolutions"] == name

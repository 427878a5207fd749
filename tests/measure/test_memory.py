"""Memory: spikes of known size read back, though they are gone before the end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.measure import memory
from bench.measure.memory import HostPeak, gpu_process_bytes, host_peak, sample_memory

MB = 10**6
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/clear_refs")


def _spike(megabytes: float) -> None:
    block = np.ones(int(megabytes * MB), dtype=np.uint8)  # ones: untouched zero pages would not be resident
    del block


def _rise(megabytes: float) -> float:
    """The least of three readings: pages that the system took back come on top of the first."""
    return min(_read(lambda: _spike(megabytes)) for _ in range(3)) / MB


def _read(call: Callable[[], None]) -> int:
    _, peak = host_peak(call)
    assert isinstance(peak, HostPeak), peak
    return peak.rise_bytes


@linux
def test_a_spike_of_200_mb_reads_back_though_it_is_freed():
    assert _rise(200) == pytest.approx(200, rel=0.05)


@linux
def test_a_small_spike_is_not_missed_after_a_large_one():
    assert _rise(200) > 190
    assert 7.2 < _rise(8) < 20, "neither missed nor the large one again; pages that were taken back come on top"


@linux
def test_memory_that_the_allocator_kept_is_counted_again():
    # blocks below the mmap threshold stay in the heap when freed while a later one lives; reusing them needs memory too
    blocks = [bytes(100_000) + b"x" for _ in range(800)]
    last = bytearray(1)
    del blocks

    def again() -> None:
        held = [bytearray(b"x") * 100_000 for _ in range(800)]
        del held

    assert min(_read(again) for _ in range(3)) == pytest.approx(80 * MB, rel=0.1)
    assert len(last) == 1


@linux
def test_peaks_read_the_same_where_freed_memory_is_kept():
    program = "import tests.measure.test_memory as t; t.memory.keep_freed_memory(); print(t._rise(20), t._rise(20))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [float(rise) for rise in done.stdout.split()] == pytest.approx([20, 20], rel=0.1)


@linux
def test_a_draw_reads_its_own_spike_and_gives_its_images(bench):
    workload = bench.workload(steps=2)
    workload.model.net.register_forward_hook(lambda *_: _spike(100))
    images, measured = min(
        (sample_memory(workload, 6) for _ in range(3)), key=lambda found: found[1].value("host_peak_bytes")
    )
    assert torch.equal(images, workload.images(6))
    assert measured.value("host_peak_bytes") == pytest.approx(100 * MB, rel=0.05)
    assert measured.value("host_peak_bytes[process]") > measured.value("host_peak_bytes") + 50 * MB  # torch itself
    assert measured.measurements[0].protocol["batch"] == 6


def test_without_a_gpu_its_columns_say_so(bench):
    _, measured = sample_memory(bench.workload(), 1)
    gpu = {"gpu_peak_allocated_bytes", "gpu_peak_reserved_bytes", "gpu_process_bytes"}
    assert {name: measured.skipped[name] for name in gpu} == dict.fromkeys(gpu, "no GPU")
    assert not gpu & {m.metric for m in measured.measurements}


def test_replayed_data_has_no_memory(bench):
    workload = bench.workload("Replayer")
    images, measured = sample_memory(workload, 3)
    assert torch.equal(images, workload.images(3))
    assert not measured.measurements
    assert "replays data" in measured.skipped["host_peak_bytes"]


def test_a_system_without_proc_gives_the_reason_and_still_runs_the_call(tmp_path):
    result, peak = host_peak(lambda: "ran", tmp_path / "none")
    assert result == "ran"
    assert "no peak that can be reset" in str(peak)


def test_a_reset_that_is_ignored_is_noticed(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  900000 kB\nVmRSS:\t  100000 kB\n")
    result, peak = host_peak(lambda: "ran", tmp_path)
    assert result == "ran"
    assert "ignores a reset" in str(peak)


def test_the_fallback_bears_another_name(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "host_peak", lambda call: host_peak(call, tmp_path / "none"))
    _, measured = sample_memory(bench.workload(), 1)
    assert "host_peak_bytes" in measured.skipped
    assert {m.metric for m in measured.measurements} == {"host_peak_bytes[lifetime]"}
    assert measured.value("host_peak_bytes[lifetime]") > 50 * MB  # torch is loaded


def test_the_drivers_figure_is_read_for_this_process_alone():
    assert gpu_process_bytes(lambda: "11, 300\n42, 512\n", pid=42) == 512 * 2**20


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("", "lists no process"), ("11, 300", "lists no process"), ("42, [N/A]", "no memory per process")],
)
def test_an_unknown_process_figure_is_a_reason_not_a_number(answer, reason):
    assert reason in str(gpu_process_bytes(lambda: answer, pid=42))


def test_a_missing_nvidia_smi_is_a_reason():
    def missing() -> str:
        raise FileNotFoundError("nvidia-smi")

    assert "did not answer" in str(gpu_process_bytes(missing))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_spike_on_the_gpu_reads_back():
    from baselines.contract import Draw, GenerativeModel, ImageShape, Noise
    from bench.measure.workload import Workload

    class Spiky(GenerativeModel):
        shape = ImageShape(1, 1, 1)

        def sample(self, n, draw, noise, given=None):
            torch.ones(200 * MB, dtype=torch.uint8, device=noise.device)
            return torch.zeros(n, 1, 1, 1, dtype=torch.uint8, device=noise.device)

    workload = Workload(Spiky(), Draw(), Noise(0, device="cuda"))
    held = torch.cuda.memory_allocated()
    _, measured = sample_memory(workload, 1)
    assert measured.value("gpu_peak_allocated_bytes") - held == pytest.approx(200 * MB, rel=0.05)
    assert measured.value("gpu_peak_reserved_bytes") >= 200 * MB

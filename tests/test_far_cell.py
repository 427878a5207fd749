"""Whole cells on a device that is not the CPU: trained, drawn, timed and scored, with no tensor left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baselines.types import Budget, Draw
from bench import matrix
from bench.job import Setup
from bench.plan import plan
from bench.worker import run_job
from tests import far_device


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "sampler", "steps"),
    [("dcgan", "native", None), ("vae", "native", None), ("flow_matching", "euler", 4), ("gaussian", "native", None)],
)
def test_a_cell_is_trained_and_measured_on_another_device(
    model: str, sampler: str, steps: int | None, tmp_path: Path
) -> None:
    far_device.alone("tests.test_far_cell", "run_cell", model, sampler, steps, str(tmp_path))


def run_cell(model: str, sampler: str, steps: int | None, folder: str) -> None:
    torch.cuda.get_device_name = lambda *_: "far"  # type: ignore[assignment]
    draw = Draw(sampler, steps)
    with far_device.device() as far:
        setup = Setup(Path(folder), far, samples=40, likelihood_images=4, batch=20, latency_s=0.01)
        (training,) = plan([matrix.Wanted(model, "digits", 0, Budget(images=128), {}, (draw,), (None,))], setup)
        for job in (training.job, *training.draws):
            record = run_job((job, None), lambda progress: None)
            assert record.status == "ok"
    assert {"images_per_s", "fd[digits-cnn]"} <= {m.metric for m in record.measured}

"""What a training cost: seconds, CPU seconds, and images a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from baselines.config import config_values
from baselines.contract import Fits, GenerativeModel, Pretrained
from bench import provenance
from bench.job import Job
from bench.measure.on_gpu import queued_share
from bench.measure.result import Measured
from bench.record import Measurement


def training_cost(model: GenerativeModel, state: Mapping[str, Any], job: Job) -> Measured:
    """What a training cost, as the trainer noted it in its state."""
    if isinstance(model, Pretrained):
        metrics = "training_s", "training_cpu_s", "training_images_per_s", "training_images_per_cpu_s"
        return Measured(skipped=dict.fromkeys(metrics, "pretrained: not trained here"))
    protocol = {
        "device": provenance.cpu_model() if job.setup.device == "cpu" else torch.cuda.get_device_name(),
        "threads": 1,
        "torch": torch.__version__,
        "side_by_side": job.setup.side_by_side,
        "budget": config_values(job.cell.budget),
        "version": 2,
    }
    note = "fitted in closed form" if isinstance(model, Fits) else f"up to {job.setup.side_by_side} trainings at a time"
    if (together := state.get("processes", 1)) > 1:
        protocol["processes"] = together
        note = f"by {together} processes together; CPU time is that of the first"
    if job.teacher is not None:
        note += f"; without the training of its teacher {job.teacher.cell.label()}"
    if not job.cell.budget.reproducible:
        note += "; budget in seconds: not reproducible"
    first = Measurement("training_s", state["seconds"], "s", "lower", 1, "train", protocol=protocol, note=note)

    def rate(metric: str, seconds: float, unit: str) -> Measurement:
        images, alone = state["images"], f"{note}; iterations alone, without validation and checkpoints"
        if job.setup.device == "cuda" and not isinstance(model, Fits):
            share = queued_share(state["step"])
            alone += f"; up to {share:.2g} of the work was queued on the GPU and done outside of them"
        value = images / max(seconds, 1e-9)
        return replace(first, metric=metric, value=value, unit=unit, better="higher", n=images, note=alone)

    return Measured(
        (
            first,
            replace(first, metric="training_cpu_s", value=state["cpu_seconds"]),
            rate("training_images_per_s", state["iterating_seconds"], "images/s"),
            rate("training_images_per_cpu_s", state["iterating_cpu_seconds"], "images/CPU s"),
        )
    )

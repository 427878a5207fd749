"""Which device to compute on."""

from __future__ import annotations

import torch

from baselines.errors import UserError


def usable_device(device: str) -> str:
    """cpu or cuda, auto resolved.

    Raises:
        UserError: if cuda is asked for and there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device: expected auto, cpu or cuda, got {device!r}")
    present = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not present:
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return "cuda" if present else "cpu"

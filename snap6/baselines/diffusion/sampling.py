"""Every sampler of a diffusion checkpoint, by the name that a draw gives it."""

from __future__ import annotations

from collections.abc import Mapping

from baselines.diffusion.samplers import DDIM, DDPM, Sampler

SAMPLERS: Mapping[str, Sampler] = {"ddpm": DDPM, "ddim": DDIM}

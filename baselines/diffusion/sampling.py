"""Every sampler of a diffusion checkpoint, by the name that a draw gives it."""

from __future__ import annotations

from collections.abc import Mapping

from baselines.diffusion.edm import EULER, HEUN
from baselines.diffusion.langevin import LANGEVIN
from baselines.diffusion.multistep import DPMPP_2M
from baselines.diffusion.ode import PF_ODE
from baselines.diffusion.samplers import DDIM, DDPM, Sampler

SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpmpp_2m": DPMPP_2M,
    "euler": EULER,
    "heun": HEUN,
    "pf_ode": PF_ODE,
    "langevin": LANGEVIN,
}

"""What a reader sees of a draw: one vocabulary for samplers, their noise and their steps, everywhere in a report."""

from __future__ import annotations

from baselines.types import Draw

SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "ancestral",
    "dpmpp_2m": "DPM-Solver++",
    "heun": "Heun",
    "euler": "Euler",
    "pf_ode": "PF-ODE",
    "langevin": "Langevin",
    "mean": "mean of p(x|z)",
}
"""Names of a diffusion model's samplers, in the order in which tables and figures have them."""

SIGMA_HAT = "sigma-hat"
_VARIANCES = {"sigma_hat": SIGMA_HAT}


def noise(draw: Draw) -> str:
    """`eta 0.5` or `sigma-hat`: what noise the steps add, where the sampler has a choice; else nothing.

    sigma-hat takes the mean of eta 1 and has no eta of its own.
    """
    if draw.variance is not None:
        return _VARIANCES.get(draw.variance, draw.variance)
    return f"eta {draw.eta:g}" if draw.sampler == "ddim" else ""


def way(draw: Draw, steps: bool = False, clip: bool = False) -> str:
    """How images are drawn, in words: `DDIM eta 0, trailing`, `DPM-Solver++, log_snr`.

    steps: with their number, `DDIM S=20 eta 0`. clip: whether a draw that does not clamp x_0 says so.
    """
    number = f"S={draw.steps}" if steps and draw.steps is not None else ""
    first = " ".join(part for part in (SAMPLERS.get(draw.sampler, draw.sampler), number, noise(draw)) if part)
    parts = [first] + ([] if draw.spacing == "uniform" else [draw.spacing])
    parts += ["no clip"] if clip and not draw.clip else []
    return ", ".join([*parts, *(f"{name}={value}" for name, value in sorted(draw.options.items()))])

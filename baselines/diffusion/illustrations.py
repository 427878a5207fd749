"""Pictures of a trained diffusion model: both processes, progressive generation, steps, interpolation, inversion.

Ho et al. 2020 (arXiv:2006.11239), fig. 6; Song et al. 2020 (arXiv:2010.02502), figs. 5 and 6 and table 2. The samplers
are used as they are: x_t and the predicted x_0 along the way are noted as the network is called.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from baselines.contract import Noise, Strip
from baselines.data.likelihood import from_signed, to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.inversion import ddim_decode, ddim_encode
from baselines.diffusion.process import Process
from baselines.diffusion.sampling import SAMPLERS
from baselines.nets.interpolation import interpolation
from baselines.types import Draw

ROWS = 6
MOMENTS = 10  # of the chain, from its first timestep to its last
STEPS = (5, 10, 20, 50, 100)
INVERSION_STEPS = (10, 20, 50, 100)
_WALK_STEPS = 50


def illustrate(denoiser: Denoiser, real: Tensor, levels: int, noise: Noise) -> tuple[Strip, ...]:
    """All strips of one denoiser.

    Args:
        denoiser: what the samplers are shown.
        real: uint8 (n, C, H, W); the first ROWS are shown, all are used for the error of the inversion.
        levels: of a pixel.
        noise: of the forward process, of x_T and of the steps.
    """
    real = real.to(noise.device)
    chw = (real.shape[1], real.shape[2], real.shape[3])
    x_T = noise.normal("x_T", ROWS, chw)
    ancestral = Recorder(denoiser, moments(denoiser.process))
    whole = sample(ancestral.denoiser, x_T, denoiser.process.timesteps, 1.0, noise)

    def walk(x: Tensor) -> Tensor:
        steps = min(_WALK_STEPS, denoiser.process.timesteps)
        return from_signed(sample(denoiser, x, steps, 0.0, noise), levels)

    caption = (
        f"DDIM with eta 0 and {min(_WALK_STEPS, denoiser.process.timesteps)} steps, from points on the great circle "
        "between two noises (Song et al. 2020, fig. 6): if x_T is a code of the image, what lies between is an image."
    )
    return (
        _forward(denoiser.process, real[:ROWS], levels, noise),
        *_backward(ancestral, whole, levels),
        _over_steps(denoiser, x_T, 0.0, None, levels, noise),
        _over_steps(denoiser, x_T, 1.0, whole, levels, noise),
        interpolation("Interpolation in the latents of DDIM", caption, chw, walk, noise),
        _inversion(denoiser, real, levels),
    )


def moments(process: Process) -> list[int]:
    """At most MOMENTS timesteps, evenly from 0 to T - 1."""
    last = process.timesteps - 1
    return sorted({round(i * last / (MOMENTS - 1)) for i in range(MOMENTS)})


def sample(denoiser: Denoiser, x_T: Tensor, steps: int, eta: float, noise: Noise) -> Tensor:
    """What DDIM makes of x_T, pixels about [-1, 1]; eta 1 with all T steps is ancestral sampling."""
    draw, ddim = Draw("ddim", steps, eta), SAMPLERS["ddim"]
    chw = (x_T.shape[1], x_T.shape[2], x_T.shape[3])
    return ddim.run(x_T, denoiser, draw, noise.normals("steps", len(x_T), chw, ddim.noises(denoiser.process, draw)))


class Recorder:
    """Notes x_t and the predicted x_0 at some times while a sampler calls the network.

    `denoiser` is what the sampler is to be shown. x_t and x_0: by time, in the order of the calls; x_0 not clamped.
    """

    def __init__(self, denoiser: Denoiser, times: list[int]) -> None:
        self.times = set(times)
        self.x_t: dict[float, Tensor] = {}
        self.x_0: dict[float, Tensor] = {}
        self._inner = denoiser
        self.denoiser = replace(denoiser, network=self._call)

    def _call(self, x_t: Tensor, t: float) -> Tensor:
        out = self._inner.network(x_t, t)
        if t in self.times:
            self.x_t[t] = x_t.clone()
            self.x_0[t] = replace(self._inner, network=lambda x, at: out).x_0(x_t, t)
        return out


def _forward(process: Process, real: Tensor, levels: int, noise: Noise) -> Strip:
    eps = noise.normal("forward", len(real), (real.shape[1], real.shape[2], real.shape[3]))
    x_0 = to_signed(real, levels).to(eps.dtype)
    times = moments(process)
    columns = [x_0, *(process.diffuse(x_0, t, eps) for t in times)]
    left = process.signal(process.timesteps - 1)
    caption = (
        f"Test images, then x_t at timestep t of 0 to {process.timesteps - 1}, with one noise an image; what is beyond "
        f"black or white is cut off. At the end the image has a weight of {left:.2g}."
    )
    return _strip("Forward process: images become noise", caption, ["image", *map(_at, times)], columns, levels)


def _backward(seen: Recorder, final: Tensor, levels: int) -> tuple[Strip, Strip]:
    times = sorted(seen.x_t, reverse=True)
    labels = [*map(_at, times), "sample"]
    process = "Ancestral sampling with all steps (eta 1) from pure noise: x_t at the timesteps of the forward process."
    guess = (
        "The network's predicted x_0 at the same moments of the same samples. Large features should be settled first, "
        "details last (Ho et al. 2020, fig. 6)."
    )
    return (
        _strip(
            "Reverse process: noise becomes images", process, labels, [*(seen.x_t[t] for t in times), final], levels
        ),
        _strip("Progressive generation", guess, labels, [*(seen.x_0[t] for t in times), final], levels),
    )


def _over_steps(denoiser: Denoiser, x_T: Tensor, eta: float, whole: Tensor | None, levels: int, noise: Noise) -> Strip:
    """whole: the samples of all T steps where they are known already."""
    total = denoiser.process.timesteps
    chosen = [steps for steps in STEPS if steps < total]
    if whole is None:
        whole = sample(denoiser, x_T, total, eta, noise)
    columns = [*(sample(denoiser, x_T, steps, eta, noise) for steps in chosen), whole]
    strip = _strip("", "", [f"S={steps}" for steps in (*chosen, total)], columns, levels)
    shown = strip.images.flatten(2).double() / (levels - 1)
    apart = (shown[:, :-1] - shown[:, -1:]).square().mean((0, 2)).sqrt()
    others = (shown[:, -1] - shown[:, -1].roll(1, 0)).square().mean().sqrt()
    told = ", ".join(f"{d:.2f} (S={s})" for d, s in zip(apart.tolist(), chosen, strict=True)) or "none (one column)"
    claim = (
        "without noise in the steps, x_T alone should decide what the image shows, whatever the number of steps (Song "
        "et al. 2020, fig. 5)"
        if eta == 0
        else "here the noise of the steps has a say, and it is another for each number of steps"
    )
    caption = (
        f"Each row is one x_T; {claim}. Root mean square difference from the last column, black to white being 1: "
        f"{told}; between rows {others:.2f}."
    )
    return replace(strip, title=f"The same noise, S of T = {total} steps: DDIM with eta {eta:g}", caption=caption)


def _inversion(denoiser: Denoiser, real: Tensor, levels: int) -> Strip:
    x_0 = to_signed(real, levels)
    columns, told = [x_0[:ROWS]], []
    total = denoiser.process.timesteps
    chosen = [steps for steps in INVERSION_STEPS if steps <= total] or [total]
    for steps in chosen:
        back = ddim_decode(ddim_encode(x_0, denoiser, steps), denoiser, steps)
        error = ((back - x_0) / 2).double().square().mean()
        columns.append(back[:ROWS])
        told.append(f"{error:.2g} (S={steps})")
    caption = (
        f"Test images encoded by running DDIM (eta 0) upwards in S steps, then decoded. Mean square error a pixel "
        f"over {len(real)} images, black to white being 1 (as in Song et al. 2020, table 2): {', '.join(told)}."
    )
    labels = ["image", *(f"S={steps}" for steps in chosen)]
    return _strip("Reconstruction by DDIM inversion", caption, labels, columns, levels)


def _strip(title: str, caption: str, labels: list[str], columns: list[Tensor], levels: int) -> Strip:
    images = torch.stack([from_signed(column, levels) for column in columns], 1).cpu()
    return Strip(title, caption, ("",) * len(images), tuple(labels), images)


def _at(t: float) -> str:
    return f"t={t:g}"

"""What the two players of a GAN minimise: the family's losses, from a discriminator's logits or a critic's values.

Goodfellow et al. 2014, arXiv:1406.2661 (minimax, eq. 1, and the non-saturating loss of their section 3); Gulrajani et
al. 2017, arXiv:1704.00028 (the gradient penalty, eq. 3); Miyato et al. 2018, arXiv:1802.05957 (the hinge, eqs. 16, 17).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import Context, Losses

Objective = Literal["minimax", "non_saturating", "classification_error"]
"""What G does about D's verdict: it minimises E log(1 - D(G(z))), or -E log D(G(z)), or -1/2 E D(G(z))."""

OBJECTIVES: tuple[Objective, ...] = ("minimax", "non_saturating", "classification_error")


def discriminator_loss(real: Tensor, fake: Tensor) -> Losses:
    """-E log D(x) - E log(1 - D(G(z))) from D's logits on real and generated images, (B,) each."""
    on_real, on_fake = F.softplus(-real).mean(), F.softplus(fake).mean()
    return Losses(on_real + on_fake, {"real": on_real, "fake": on_fake, "accuracy": accuracy(real, fake)})


def generator_loss(fake: Tensor) -> Losses:
    """The non-saturating -E log D(G(z)) from D's logits on generated images (B,)."""
    return Losses(F.softplus(-fake).mean())


def classification_error(real: Tensor, fake: Tensor) -> Losses:
    """1/2 E[1 - D(x)] + 1/2 E D(G(z)), (B,) logits each: how often D is wrong when it answers at random by D.

    Its minimum over D is (1 - TV(p, q)) / 2 of the total variation distance, at D = 1 where p > q and 0 where p < q.
    """
    on_real, on_fake = torch.sigmoid(-real).mean() / 2, torch.sigmoid(fake).mean() / 2
    return Losses(on_real + on_fake, {"real": on_real, "fake": on_fake, "accuracy": accuracy(real, fake)})


def discriminator_objective(objective: Objective, real: Tensor, fake: Tensor) -> Losses:
    """What D minimises, from its logits (B,) each; minimax and non-saturating GANs have the same discriminator."""
    return classification_error(real, fake) if objective == "classification_error" else discriminator_loss(real, fake)


def generator_objective(objective: Objective, fake: Tensor) -> Losses:
    """What G minimises, from D's logits on generated images (B,)."""
    if objective == "minimax":
        return Losses(-F.softplus(fake).mean())  # log(1 - D) of D = sigmoid(logit)
    if objective == "non_saturating":
        return generator_loss(fake)
    return Losses(-torch.sigmoid(fake).mean() / 2)


def generator_slope(objective: Objective, logits: Tensor) -> Tensor:
    """The derivative of one image's generator loss by D's logit, in closed form, (B,) to (B,).

    With D = sigmoid(logit): -D, -(1 - D) and -D (1 - D) / 2. Where D rejects with confidence, D near 0, the first and
    the last vanish with D, and only the second keeps its size.
    """
    d, other = torch.sigmoid(logits), torch.sigmoid(-logits)
    return {"minimax": -d, "non_saturating": -other, "classification_error": -d * other / 2}[objective]


def accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """The share of verdicts that are right, 0-d, of logits (B,) each; a half is as good as chance."""
    return ((real > 0).float().mean() + (fake < 0).float().mean()) / 2


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, places: Tensor) -> Tensor:
    """E (|grad f(x^)| - 1)^2, 0-d, at x^ = e x + (1 - e) G(z) (Gulrajani et al. 2017, eq. 3 and their algorithm 1).

    Args:
        critic: images (B, C, H, W) to values (B,), each of its own image alone.
        real: x, (B, C, H, W).
        fake: G(z), (B, C, H, W).
        places: e in [0, 1], (B,), one an image.
    """
    return slope_penalty(critic, between(real, fake, places))


def slope_penalty(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """E (|grad f| - 1)^2 at images (B, C, H, W), 0-d; 0 for a slope of one (Gulrajani et al. 2017, eq. 3)."""
    return (slopes(critic, images) - 1).square().mean()


def between(real: Tensor, fake: Tensor, places: Tensor) -> Tensor:
    """The points e x + (1 - e) G(z), detached; arguments as in `gradient_penalty`."""
    return torch.lerp(fake.detach(), real.detach(), places.view(-1, 1, 1, 1))


def slopes(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The Euclidean norm of the critic's gradient at each of the images (B, C, H, W), (B,), differentiable."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms


def hinge_loss(real: Tensor, fake: Tensor) -> Losses:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) from values (B,) each (Miyato et al. 2018, eq. 16)."""
    on_real, on_fake = F.relu(1 - real).mean(), F.relu(1 + fake).mean()
    return Losses(on_real + on_fake, {"real": on_real, "fake": on_fake, "accuracy": accuracy(real, fake)})


def blurred(images: Tensor, levels: int, context: Context) -> Tensor:
    """Images in [-1, 1] with half a level of uniform noise either way.

    Without it the grid of levels alone would tell real images from generated ones.
    """
    return images + (2 * context.uniform(*images.shape) - 1) / (levels - 1)

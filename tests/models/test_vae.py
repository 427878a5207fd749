"""VAE: its bounds against models whose likelihood is known exactly, and its pixel distributions against themselves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from baselines.autoencoders import code_priors, vae
from baselines.autoencoders.vae import Config, Vae
from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import discretised_logistic
from baselines.errors import UserError
from baselines.types import ImageShape

DIGITS = ImageShape(1, 8, 8, 17)
BINARY = ImageShape(1, 3, 3, 2)
HEADS = [("bernoulli", 2), ("categorical", 2), ("categorical", 17), ("logistic", 17), ("logistic", 256)]


def context() -> Context:
    return Context(0, 0.5, torch.Generator().manual_seed(0), torch.device("cpu"))


def built(shape: ImageShape, config: Config, perturb: float = 0.0) -> Vae:
    torch.manual_seed(0)
    model = Vae(shape, config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(perturb * torch.randn_like(parameter))
    return model


# The bounds, where everything is linear and Gaussian: x = W z + noise has an exact marginal and an exact posterior


class Linear(Vae):
    """The VAE's own bounds over P(x|z) = N(W z, s^2 I) and any Gaussian q(z|x) with a diagonal covariance."""

    def __init__(self, exact: bool) -> None:
        super().__init__(ImageShape(1, 2, 3, 256), Config(latent=3))
        generator = torch.Generator().manual_seed(2)
        q, _ = torch.linalg.qr(torch.randn(6, 3, generator=generator, dtype=torch.float64))
        self.w = q * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)  # orthogonal columns: a diagonal posterior
        self.s = 0.8
        self.exact = exact

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        precision = 1 + (self.w**2).sum(0) / self.s**2
        mean = x.flatten(1).double() @ self.w / self.s**2 / precision
        log_std = (-0.5 * precision.log()).expand_as(mean)
        return (mean, log_std) if self.exact else (0.8 * mean + 0.3, log_std + 0.3)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return Normal(z @ self.w.T, self.s).log_prob(x.flatten(1).double()).sum(1)

    def log_marginal(self, x: Tensor) -> np.ndarray:
        covariance = (self.w @ self.w.T).numpy() + self.s**2 * np.eye(6)
        return np.asarray(stats.multivariate_normal(np.zeros(6), covariance).logpdf(x.flatten(1).numpy()))


POINTS = torch.randint(0, 4, (400, 1, 2, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
DOUBLE = Noise(0, dtype=torch.float64)


def test_at_the_exact_posterior_every_bound_is_the_exact_log_likelihood() -> None:
    model = Linear(exact=True)
    exact = model.log_marginal(POINTS)
    assert exact.std() > 0.5, "the points differ"
    for samples in (1, 5, 50):
        np.testing.assert_allclose(model.importance_bound(POINTS, samples, DOUBLE).numpy(), exact, rtol=1e-9)
    np.testing.assert_allclose(-model.nats(POINTS, "iwae_k64", DOUBLE).total.numpy(), exact, rtol=1e-9)
    # One sample leaves the reconstruction its variance, the mean over many none
    elbo = torch.stack([-model.nats(POINTS, "elbo", DOUBLE.fork(k)).total for k in range(300)])
    assert float(elbo.mean()) == pytest.approx(float(exact.mean()), abs=5 * float(elbo.mean(1).std()) / 300**0.5)


def test_away_from_it_the_bounds_are_ordered_elbo_then_more_and_more_samples_then_exact() -> None:
    model = Linear(exact=False)
    exact = float(model.log_marginal(POINTS).mean())
    elbo = float(-model.nats(POINTS, "elbo", DOUBLE).total.mean())
    five, fifty = (
        float(np.mean([model.importance_bound(POINTS, k, DOUBLE.fork(i)).mean() for i in range(10)])) for k in (5, 50)
    )
    assert elbo < five - 0.05
    assert five < fifty - 0.02
    assert fifty < exact
    assert exact - fifty < 0.1 * (exact - elbo)


def test_the_gap_of_the_elbo_is_the_kl_from_the_exact_posterior() -> None:
    rough, exact = Linear(exact=False), Linear(exact=True)
    q, p = (Normal(mean, log_std.exp()) for mean, log_std in (m.posterior(POINTS) for m in (rough, exact)))
    gap = exact.log_marginal(POINTS).mean() - np.mean(
        [float(-rough.nats(POINTS, "elbo", DOUBLE.fork(k)).total.mean()) for k in range(200)]
    )
    assert gap == pytest.approx(float(kl_divergence(q, p).sum(1).mean()), rel=0.02)


def test_the_kl_is_that_of_torch_distributions() -> None:
    mean, log_std = torch.randn(7, 4), torch.randn(7, 4)
    theirs = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(code_priors.kl_to_standard_normal(mean, log_std), theirs)
    torch.testing.assert_close(code_priors.log_standard_normal(mean), Normal(0.0, 1.0).log_prob(mean).sum(1))


# A prior that is learned


def mixture(latent: int, components: int) -> code_priors.LearnedMixture:
    torch.manual_seed(3)
    prior = code_priors.LearnedMixture(latent, components).double()
    with torch.no_grad():
        prior.scaled_means.copy_(torch.randn(components, latent) * 2 / code_priors.PACE)
        prior.log_stds.copy_(0.5 * torch.randn(components, latent) - 0.5)
        prior.logits.copy_(torch.randn(components))
    return prior


def theirs_of(prior: code_priors.LearnedMixture) -> MixtureSameFamily:
    return MixtureSameFamily(
        Categorical(logits=prior.logits), Independent(Normal(prior.means, prior.log_stds.exp()), 1)
    )


def test_the_mixtures_density_is_that_of_torch_distributions() -> None:
    prior = mixture(3, 5)
    z = 3 * torch.randn(50, 3, dtype=torch.float64)
    torch.testing.assert_close(prior.log_density(z), theirs_of(prior).log_prob(z))


def test_the_mixtures_draws_follow_its_density() -> None:
    prior = mixture(1, 4)
    with torch.no_grad():
        draws = prior.draw(torch.randn(20_000, prior.numbers, dtype=torch.float64))
        below = theirs_of(prior)
        cdf = (below.mixture_distribution.probs * Normal(prior.means[:, 0], prior.log_stds[:, 0].exp()).cdf(draws)).sum(
            1
        )
    assert draws.shape == (20_000, 1)
    assert stats.kstest(cdf.numpy(), "uniform").pvalue > 1e-3
    spread = stats.kstest(((draws - draws.mean()) / draws.std())[:, 0].numpy(), "norm").pvalue
    assert spread < 1e-6, "the premise: the mixture is not normal"


def test_a_mixtures_divergence_is_estimated_without_bias_and_is_exact_for_one_normal_component() -> None:
    torch.manual_seed(4)
    mean, log_std = torch.randn(1, 2, dtype=torch.float64), torch.tensor([[-0.7, 0.2]], dtype=torch.float64)
    prior = mixture(2, 3)
    eps = torch.randn(200_000, 2, dtype=torch.float64)
    with torch.no_grad():
        estimates = prior.divergence(mean, log_std, mean + log_std.exp() * eps)
    places = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(places, places)
    log_q = Normal(mean, log_std.exp()).log_prob(grid).sum(1)
    log_p = theirs_of(prior).log_prob(grid).detach()
    exact = (log_q.exp() * (log_q - log_p)).sum() * (places[1] - places[0]) ** 2
    assert float(estimates.mean()) == pytest.approx(float(exact), abs=5 * float(estimates.std()) / len(eps) ** 0.5)
    one = mixture(2, 1)
    with torch.no_grad():
        one.scaled_means.zero_()
        one.log_stds.zero_()
        estimates = one.divergence(mean, log_std, mean + log_std.exp() * eps)
    normal = float(code_priors.StandardNormal(2).divergence(mean, log_std, mean))
    assert float(estimates.mean()) == pytest.approx(normal, abs=5 * float(estimates.std()) / len(eps) ** 0.5)


def test_a_learned_prior_finds_codes_that_a_normal_one_leaves_out() -> None:
    """Codes in two narrow clusters: the loss moves the means there, and the KL falls below the standard normal's."""
    torch.manual_seed(5)
    prior = code_priors.LearnedMixture(1, 4)
    mean = torch.tensor([-2.0, 2.0]).repeat(64)[:, None]
    log_std = torch.full_like(mean, -2.0)
    optimiser = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(300):
        optimiser.zero_grad()
        prior.divergence(mean, log_std, mean + log_std.exp() * torch.randn_like(mean)).mean().backward()
        optimiser.step()
    with torch.no_grad():
        z = mean + log_std.exp() * torch.randn_like(mean)
        learned = float(prior.divergence(mean, log_std, z).mean())
        draws = prior.draw(torch.randn(2000, prior.numbers))
    normal = float(code_priors.kl_to_standard_normal(mean, log_std).mean())
    assert normal > 3
    assert learned == pytest.approx(math.log(2), abs=0.15), "which of two clusters: nothing else is left to tell"
    assert float(((draws.abs() - 2).abs() < 0.6).float().mean()) > 0.95


def test_with_a_learned_prior_the_latent_decodes_to_what_is_drawn_and_the_prior_learns() -> None:
    model = built(DIGITS, Config(latent=3, width=8, prior="mixture", components=4), perturb=0.3)
    with torch.no_grad():
        drawn = model.sample(40, Draw("mean"), DOUBLE)
        decoded = model.decode(DOUBLE.normal("z", 40, (model.latent,)))
    torch.testing.assert_close(drawn.double(), (decoded + 1) * 8, atol=0.5 + 1e-9, rtol=0)
    assert float(drawn.double().var(0).mean()) > 0.1, "the premise: codes decide the image"
    model.loss(Batch(torch.randint(0, 17, (16, 1, 8, 8), dtype=torch.uint8)), context()).total.backward()
    (phase,) = model.phases()
    for name, parameter in model.code_prior.named_parameters(prefix="code_prior"):
        assert name.split(".")[0] in phase.modules
        assert name.split(".")[0] in model.averaged
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0


# The whole model on a space small enough to sum over: P(x) by Gauss-Hermite quadrature over one z


@pytest.fixture(scope="module", params=["normal", "mixture"])
def tiny(request: pytest.FixtureRequest) -> tuple[Vae, Tensor, Tensor]:
    """A model with one latent dimension, all 512 images, and the exact P of each."""
    model = built(BINARY, Config(latent=1, width=4, prior=request.param, components=2), perturb=0.3)
    with torch.no_grad():
        for parameter in model.encoder[-1].parameters():
            parameter.zero_()  # q(z|x) is N(0, 1): a poor bound, but an importance weight that is bounded
    share, means, stds = [1.0], [0.0], [1.0]
    if isinstance(model.code_prior, code_priors.LearnedMixture):
        share, means, stds = [0.3, 0.7], [-0.9, 0.6], [0.5, 0.7]
        with torch.no_grad():
            model.code_prior.scaled_means.copy_(torch.tensor(means)[:, None] / code_priors.PACE)
            model.code_prior.log_stds.copy_(torch.tensor(stds)[:, None].log())
            model.code_prior.logits.copy_(torch.tensor(share).log())
    every = torch.tensor(list(itertools.product(range(2), repeat=9)), dtype=torch.uint8).view(-1, 1, 3, 3)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p = torch.zeros(512, dtype=torch.float64)
    with torch.no_grad():
        for w, mean, std in zip(share, means, stds, strict=True):
            for node, weight in zip(nodes, weights, strict=True):
                z = torch.full((512, 1), mean + std * float(node), dtype=torch.float64)
                p += w * float(weight) / math.sqrt(2 * math.pi) * model.log_likelihood(every, z).exp()
    return model, every, p


def test_the_probabilities_of_all_images_sum_to_one_and_the_bounds_lie_below(tiny: tuple[Vae, Tensor, Tensor]) -> None:
    model, every, p = tiny
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    with torch.no_grad():
        elbo = -model.nats(every, "elbo", DOUBLE).total
        iwae = -model.nats(every, "iwae_k64", DOUBLE).total
        many = model.importance_bound(every, 500, DOUBLE)
    exact = (p * p.log()).sum()
    assert float((p * elbo).sum()) < float((p * iwae).sum()) < float(exact) + 0.01
    assert float((p * elbo).sum()) < float(exact) - 0.05, "q(z|x) = p(z) leaves a gap"
    assert float((p * many).sum()) == pytest.approx(float(exact), abs=0.01)


def test_the_sampler_follows_the_probabilities(tiny: tuple[Vae, Tensor, Tensor]) -> None:
    model, _, p = tiny
    with torch.no_grad():
        images = model.sample(8000, Draw(), DOUBLE)
    counts = torch.bincount(images.flatten(1).long() @ 2 ** torch.arange(8, -1, -1), minlength=512).numpy()
    likely = (8000 * p > 5).numpy()
    assert likely.sum() > 30
    expected = 8000 * p.numpy()
    observed = np.append(counts[likely], counts[~likely].sum())
    assert stats.chisquare(observed, np.append(expected[likely], expected[~likely].sum())).pvalue > 1e-3


# Pixels


def pixels_of(head: vae.Head, levels: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    size = (1, vae.parameters_per_pixel(head, levels), 1, 2, 3)
    return torch.randn(size, generator=generator, dtype=torch.float64) - int(head == "logistic")


@pytest.mark.parametrize(("head", "levels"), HEADS)
def test_each_pixels_probabilities_sum_to_one_and_draws_invert_their_distribution_function(
    head: vae.Head, levels: int
) -> None:
    pixels = pixels_of(head, levels)
    level = torch.arange(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 3)
    p = vae.log_prob(head, level, pixels.expand(levels, -1, -1, -1, -1), levels).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(1, 2, 3, dtype=torch.float64), atol=1e-6, rtol=0)
    n = 20_000  # an even grid of u: each level's share is its probability to 1 / n
    u = ((torch.arange(n, dtype=torch.float64) + 0.5) / n).view(n, 1, 1, 1).expand(n, 1, 2, 3)
    drawn = vae.draw_pixels(head, pixels.expand(n, -1, -1, -1, -1), u, levels)
    for value in range(levels):
        share = (drawn == value).double().mean(0)
        torch.testing.assert_close(share, p[value], atol=3 / n, rtol=0)
    mean = drawn.double().mean(0)
    ours = vae.expectation(head, pixels, levels)[0].double()
    if head != "logistic":  # the logistic's location is the mean before rounding and clamping
        assert float((ours - mean).abs().max()) <= 0.5 + 1e-3


def test_the_logistic_head_is_the_discretised_logistic_of_its_two_maps() -> None:
    pixels = pixels_of("logistic", 256)
    x = torch.randint(0, 256, (1, 1, 2, 3), dtype=torch.uint8)
    theirs = discretised_logistic(x, pixels[:, 0], pixels[:, 1], 256)
    torch.testing.assert_close(vae.log_prob("logistic", x, pixels, 256), theirs)


def test_the_pixel_distribution_follows_the_levels() -> None:
    found = {levels: vae.head_for(levels, "auto") for levels in (2, 3, 17, 32, 33, 256)}
    kinds = ("bernoulli", "categorical", "categorical", "categorical", "logistic", "logistic")
    assert tuple(found.values()) == kinds
    assert vae.head_for(256, "categorical") == "categorical"
    with pytest.raises(UserError, match="2 levels"):
        vae.head_for(17, "bernoulli")


# Training


def test_the_loss_is_the_negative_elbo_and_beta_weighs_its_kl() -> None:
    x = Batch(torch.randint(0, 17, (16, 1, 8, 8), dtype=torch.uint8))
    for beta in (1.0, 0.25):
        model = built(DIGITS, Config(beta=beta), perturb=0.05).float()
        losses = model.loss(x, context())
        kl, reconstruction = losses.parts["kl"], losses.parts["reconstruction"]
        assert kl.item() > 0.1
        torch.testing.assert_close(losses.total * 64, reconstruction + beta * kl)
        noise = context().normal(16, model.config.latent)
        mean, log_std = model.posterior(x.images)
        expected = -model.log_likelihood(x.images, mean + log_std.exp() * noise).mean()
        torch.testing.assert_close(reconstruction, expected)


def test_the_gradient_passes_through_the_sample_of_z_to_the_encoder() -> None:
    model = built(DIGITS, Config(beta=0.0, dropout=0.0), perturb=0.02)
    batch = Batch(torch.randint(0, 17, (8, 1, 8, 8), dtype=torch.uint8))
    loss = model.loss(batch, context()).total
    weight = model.encoder[-1].weight
    (gradient,) = torch.autograd.grad(loss, weight)
    step = 1e-3 * gradient / gradient.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step
            values.append(float(model.loss(batch, context()).total))  # the same noise: a path, not a score
            weight -= sign * step
    assert float(gradient.norm()) > 1e-4
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_a_few_hundred_steps_beat_independent_pixels_and_reconstruct() -> None:
    from baselines.data import digits

    data = digits.load()
    torch.manual_seed(0)
    model = Vae(data.shape, Config(width=16))
    optimiser = torch.optim.Adam(model.parameters(), 4e-3)
    for step in range(150):
        index = torch.randint(0, len(data.train), (64,), generator=torch.Generator().manual_seed(step))
        ctx = Context(step, step / 150, torch.Generator().manual_seed(step), torch.device("cpu"))
        optimiser.zero_grad()
        model.loss(Batch(data.train.images[index]), ctx).total.backward()
        optimiser.step()
    model.eval()
    x = data.test.images
    share = torch.stack([(data.train.images == level).double().mean(0) for level in range(17)]) + 1e-3
    independent = -share.log()[:, 0].gather(0, x[:, 0].long()).flatten(1).sum(1).mean()
    with torch.no_grad():
        bound = model.nats(x, "elbo", Noise(0)).total.mean()
        error = (model.reconstruct(x).double() - x.double()).pow(2).mean()
        pixels = model.sample(200, Draw("mean"), Noise(0)).double()
    assert float(bound) < 0.95 * float(independent)
    assert float(error) < 0.5 * float(x.double().var(0).mean()), "a code says more than the mean image"
    assert float(pixels.var(0).mean()) > 1, "z decides the image"


# Codes


def test_codes_are_draws_of_the_posterior_and_their_means() -> None:
    model = built(DIGITS, Config(latent=3, width=8), perturb=0.05)
    x = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        mean, log_std = model.posterior(x)
        draws = torch.stack([model.draw_codes(x, DOUBLE.fork(k)) for k in range(2000)])
        assert torch.equal(model.encode(x), mean)
    assert float(log_std.exp().min()) > 0.1, "the premise: codes are spread"
    torch.testing.assert_close(draws.mean(0), mean, atol=5 * float(log_std.exp().max()) / 2000**0.5, rtol=0)
    torch.testing.assert_close(draws.std(0), log_std.exp(), rtol=0.1, atol=0)
    torch.testing.assert_close(model.prior(3, DOUBLE), DOUBLE.normal("z", 3, (3,)))


def test_a_flat_latent_shows_its_map_and_a_deeper_one_walks_between_draws() -> None:
    x = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    for latent, title in ((2, "The space of codes"), (5, "Between two draws of the prior")):
        model = built(DIGITS, Config(latent=latent, width=8), perturb=0.05).float()
        strips = model.pictures(x, Noise(0))
        assert strips[-1].title == title
        assert torch.equal(strips[0].images[1], model.reconstruct(x))
    model = built(DIGITS, Config(latent=2, width=8, prior="mixture"), perturb=0.05).float()
    assert model.pictures(x, Noise(0))[-1].title == "Between two draws of the prior", "the map is the normal prior's"
    model = built(DIGITS, Config(latent=2, width=8), perturb=0.05).float()
    grid = model.pictures(x, Noise(0))[-1]
    corner = torch.special.ndtri(torch.tensor([0.5 / 12, 11.5 / 12]))[None]  # left, and at the top
    assert grid.images.shape[:2] == (12, 12)
    assert torch.equal(grid.images[0, 0], model._expected(corner)[0])


def test_bad_choices_are_refused() -> None:
    with pytest.raises(UserError, match="beta"):
        Config(beta=-1.0)
    with pytest.raises(UserError, match="dropout"):
        Config(dropout=1.0)
    with pytest.raises(UserError, match="latent"):
        Config(latent=0)
    with pytest.raises(UserError, match="components"):
        Config(prior="mixture", components=0)
    model = Vae(BINARY, Config(width=4))
    for draw, told in ((Draw("ddim"), "no sampler"), (Draw("mean", options={"temperature": 0.5}), "takes no options")):
        with pytest.raises(UserError, match=told):
            model.sample(1, draw, Noise(0))

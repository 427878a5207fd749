"""GAN-CLS: what is right and what is wrong, words instead of labels, and captions between two others."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import trainer
from baselines.contract import Batch, Conditions, Context, Draw, Given, Noise, Training
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.text2image import (
    MODEL,
    Config,
    Text2Image,
    discriminator_loss,
    divergence,
    matching_loss,
)
from baselines.given import Requests
from baselines.nets.captions import CaptionEncoder
from baselines.types import Budget, ImageShape

SHAPE = ImageShape(3, 8, 8, 256)
WORDS = ("", "dark", "bright", "left", "right", "and")
CONDITIONS = Conditions(words=WORDS, caption_length=4)
SMALL = Config(latent=8, text=16, text_hidden=16, compressed=8, width=8, training=Training(16, ema_decay=0.99))


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def built(config: Config = SMALL, shape: ImageShape = SHAPE) -> Text2Image:
    model = trainer.build(MODEL, shape, config, 0, CONDITIONS)
    assert isinstance(model, Text2Image)
    return model


def batch_of(n: int = 16, same: int = 0) -> Batch:
    """Random images and captions, of which the first `same` are equal."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, *SHAPE.chw), generator=generator, dtype=torch.uint8)
    tokens = torch.randint(1, len(WORDS), (n, 4), generator=generator)
    tokens[:same] = tokens[0]
    return Batch(images, given=Given(tokens=tokens))


# What D learns (Algorithm 1)


def test_only_real_images_with_their_own_captions_are_right() -> None:
    """-log s_r - (log(1 - s_w) + log(1 - s_f)) / 2, as binary cross-entropies against 1, 0 and 0."""
    generator = torch.Generator().manual_seed(0)
    right, wrong, fake = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    bce = F.binary_cross_entropy
    one, zero = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    expected = bce(right.sigmoid(), one) + (bce(wrong.sigmoid(), zero) + bce(fake.sigmoid(), zero)) / 2
    found = discriminator_loss(right, wrong, fake, torch.ones(50, dtype=torch.bool))
    torch.testing.assert_close(found.total, expected)


def test_the_best_discriminator_answers_by_the_three_densities() -> None:
    """Minimised over D at each point, s = p_r / (p_r + (p_w + p_f) / 2)."""
    p = {"right": [4, 3, 2, 1], "wrong": [1, 3, 1, 5], "fake": [5, 1, 3, 1]}
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def loss() -> Tensor:
        optimiser.zero_grad()
        at = {name: logits[torch.arange(4).repeat_interleave(torch.tensor(counts))] for name, counts in p.items()}
        total = discriminator_loss(**at, differs=torch.ones(10, dtype=torch.bool)).total
        total.backward()
        return total

    optimiser.step(loss)
    best = torch.tensor([r / (r + (w + f) / 2) for r, w, f in zip(*p.values(), strict=True)], dtype=torch.float64)
    torch.testing.assert_close(logits.detach().sigmoid(), best, atol=1e-4, rtol=0)


def test_a_caption_that_equals_the_right_one_is_no_negative() -> None:
    wrong = torch.tensor([1.0, -2.0, 3.0])
    zero = torch.zeros(3)
    some = discriminator_loss(zero, wrong, zero, torch.tensor([True, False, True])).parts["wrong"]
    torch.testing.assert_close(some, F.softplus(wrong[[0, 2]]).mean())
    none = torch.zeros(3, dtype=torch.bool)
    assert discriminator_loss(zero, wrong, zero, none).parts["wrong"].item() == 0


def test_mismatched_captions_are_negatives() -> None:
    """D is asked about the real images with other captions of the batch, and a step makes them less likely."""
    model, batch = built(), batch_of()
    asked: list[tuple[Tensor, Tensor]] = []
    judge = model.discriminator.judge
    model.discriminator.judge = lambda features, text: asked.append((features, text)) or judge(features, text)  # type: ignore
    losses = model.discriminator_loss(batch, context())
    (seen, right), (same, wrong), (generated, text) = asked
    assert seen is same
    assert not torch.equal(seen, generated)
    assert torch.equal(right, text)
    assert batch.given is not None
    assert batch.given.tokens is not None
    torch.testing.assert_close(right, model.encoder(batch.given.tokens))
    assert not (wrong == right).all(1).any(), "no image keeps its own"
    assert {tuple(row) for row in wrong.tolist()} == {tuple(row) for row in right.tolist()}, "captions of the batch"

    parameters = list(model.discriminator.parameters())
    gradients = torch.autograd.grad(losses.parts["wrong"], parameters, allow_unused=True)
    with torch.no_grad():
        before = model.discriminator(to_signed(batch.images, 256), wrong).mean()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-2 * gradient
        after = model.discriminator(to_signed(batch.images, 256), wrong).mean()
    assert float(after) < float(before)


def test_captions_are_mismatched_anew_in_each_step_and_equal_ones_do_not_count() -> None:
    model, batch = built(), batch_of()
    asked: list[Tensor] = []
    judge = model.discriminator.judge
    model.discriminator.judge = lambda features, text: asked.append(text) or judge(features, text)  # type: ignore
    for step in range(20):
        model.discriminator_loss(batch, context(step))
    wrong = [tuple(text[0].tolist()) for text in asked[1::3]]
    assert len(wrong) == 20
    assert len(set(wrong)) > 8, "of 15 others"
    assert model.discriminator_loss(batch_of(4, same=4), context()).parts["wrong"].item() == 0


# What the encoders learn


def test_the_matching_loss_is_two_cross_entropies_over_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    text, images = torch.randn(2, 6, 16, generator=generator, dtype=torch.float64)
    p = ((text @ images.T) / 4).exp()
    expected = -sum(math.log(p[i, i] / p[i].sum()) + math.log(p[i, i] / p[:, i].sum()) for i in range(6)) / 12
    assert float(matching_loss(text, images).total) == pytest.approx(expected)
    assert float(matching_loss(torch.zeros(6, 16), torch.zeros(6, 16)).total) == pytest.approx(math.log(6))


def test_padding_changes_nothing_and_the_order_of_words_does() -> None:
    torch.manual_seed(0)
    encoder = CaptionEncoder(6, 16, 12).double()
    tokens = torch.tensor([[1, 3, 5, 2], [2, 3, 5, 1]])
    padded = F.pad(tokens, (0, 3))
    found = encoder(padded)
    torch.testing.assert_close(encoder(tokens), found)
    torch.testing.assert_close(encoder(padded[:1])[0], found[0])
    assert (found[0] - found[1]).abs().max().item() > 0.01, "the same words in another order say something else"
    torch.testing.assert_close(found.mean(1), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert bool(torch.isfinite(encoder(torch.zeros(1, 4, dtype=torch.int64))).all())


def test_words_alone_reach_it_no_labels_and_no_attributes() -> None:
    """Training on other labels and attributes is the same training; on other words it is another."""
    batch = batch_of()
    model = built()
    told = dataclasses.replace(batch, labels=torch.arange(16), attributes=torch.arange(16)[:, None])
    for phase in model.phases():
        assert torch.equal(phase.loss(batch, context()).total, phase.loss(told, context()).total)
    assert batch.given is not None
    assert batch.given.tokens is not None
    more = dataclasses.replace(batch.given, labels=torch.arange(16), attributes=torch.arange(16)[:, None])
    model.eval()
    drawn = model.sample(16, Draw(), Noise(0), batch.given)
    assert torch.equal(drawn, model.sample(16, Draw(), Noise(0), more))
    with torch.no_grad():  # at first all images are grey
        model.generator.last.weight.mul_(50)  # type: ignore
    drawn = model.sample(16, Draw(), Noise(0), batch.given)
    assert not torch.equal(drawn, model.sample(16, Draw(), Noise(0), Given(tokens=batch.given.tokens.flip(1))))


def test_each_loss_reaches_its_own_networks_and_all_of_them() -> None:
    model, batch = built(), batch_of()
    for phase in model.phases():
        model.zero_grad()
        phase.loss(batch, context()).total.backward()
        for name in phase.modules:
            for parameter_name, parameter in model.get_submodule(name).named_parameters():
                assert parameter.grad is not None, (phase.name, parameter_name)
                assert float(parameter.grad.abs().max()) > 0, (phase.name, parameter_name)
        if phase.name == "discriminator":
            assert all(p.grad is None for p in model.generator.parameters())
        else:
            assert all(p.grad is None for p in model.encoder.parameters())


def test_the_encoder_learns_by_matching_alone() -> None:
    model, batch = built(), batch_of()
    parts = model.discriminator_loss(batch, context()).parts
    parameters = list(model.encoder.parameters())
    for name in ("right", "wrong", "fake"):
        found = torch.autograd.grad(parts[name], parameters, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found), name
    found = torch.autograd.grad(parts["matching"], parameters)
    assert all(float(gradient.abs().max()) > 0 for gradient in found)


# Captions between two others


def test_interpolated_captions_are_halfway_and_judged_as_what_they_are() -> None:
    """GAN-INT, eq. 5 with beta = 1/2: G and D see the mean of two captions' encodings."""
    model = built(dataclasses.replace(SMALL, interpolation=0.5))
    batch = batch_of()
    drawn: list[Tensor] = []
    judged: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda module, args: drawn.append(args[1]))
    model.discriminator.register_forward_pre_hook(lambda module, args: judged.append(args[1]))
    losses = model.generator_loss(batch, context())
    assert batch.given is not None
    assert batch.given.tokens is not None
    text = model.encoder(batch.given.tokens)
    torch.testing.assert_close(drawn[0], text)
    assert torch.equal(drawn[1], judged[1])
    means = [(text + text.roll(shift, 0)) / 2 for shift in range(1, 16)]
    assert any(torch.allclose(drawn[1], mean) for mean in means)
    told = model.config.augmentation * losses.parts["told_nats"]
    torch.testing.assert_close(losses.total, losses.parts["right"] + 0.5 * losses.parts["between"] + told)


# What the generator's first layer is told


def test_the_nats_told_are_the_divergence_of_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_std), expected)
    assert float(divergence(torch.zeros(1, 5), torch.zeros(1, 5))) == 0


def test_of_the_first_layers_input_the_text_moves_mean_and_spread_of_its_own_part_alone() -> None:
    model = built()
    text = torch.randn(2, SMALL.text, generator=torch.Generator().manual_seed(0))
    z = torch.randn(1, model.latent, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    seen: list[Tensor] = []
    model.generator.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0][:, :, 0, 0]))
    model.generator(z, text)
    mean, log_std = model.generator.conditions(text)
    torch.testing.assert_close(seen[0][:, : SMALL.latent], z[:, : SMALL.latent])
    expected = torch.distributions.Normal(mean, log_std.exp()).icdf(torch.special.ndtr(z[:, SMALL.latent :]))
    torch.testing.assert_close(seen[0][:, SMALL.latent :], expected, rtol=1e-3, atol=1e-3)


def test_the_pictures_show_captions_in_rows_and_walks_that_begin_and_end_at_them() -> None:
    model = built().eval()
    with torch.no_grad():
        model.generator.last.weight.mul_(50)  # type: ignore
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(1, 6, (3, 4), generator=generator)
    requests = Requests(Given(tokens=tokens), unseen=torch.tensor([True, False, False]))
    captions, walks = model.pictures_of(requests, Noise(3))
    assert captions.images.shape == (8, 4, *SHAPE.chw)
    first = " ".join(WORDS[token] for token in tokens[0].tolist())
    assert captions.rows[0] == f"{first} *"
    assert captions.rows[3] == captions.rows[0], "requests go round"
    assert not captions.rows[1].endswith("*")
    assert walks.columns[0] == "0"
    assert walks.columns[-1] == "1"
    z = Noise(3).normal("walks", 4, (model.latent,))
    for column, row in ((0, 0), (-1, 1)):
        images = model._images(z[:1], model.encoder(tokens[row : row + 1]))
        assert int((images[0].int() - walks.images[0, column].int()).abs().max()) <= 1
    assert not torch.equal(walks.images[0, 0], walks.images[0, -1])


# Training and drawing


def toy(n: int = 256) -> Dataset:
    """Halves of an image that are bright or dark, with captions such as `left bright and right dark`, in two orders."""
    generator = torch.Generator().manual_seed(0)
    bright = torch.randint(0, 2, (n, 2), generator=generator)
    images = torch.randint(0, 40, (n, 3, 8, 8), generator=generator)
    images[..., :4] += 200 * bright[:, 0].view(-1, 1, 1, 1)
    images[..., 4:] += 200 * bright[:, 1].view(-1, 1, 1, 1)
    left = torch.stack([torch.full((n,), 3), 1 + bright[:, 0]], 1)
    right = torch.stack([torch.full((n,), 4), 1 + bright[:, 1]], 1)
    swap = torch.rand(n, 1, generator=generator) < 0.5
    tokens = torch.cat([torch.where(swap, right, left), torch.where(swap, left, right)], 1)
    split = Split(images.to(torch.uint8), attributes=bright, requests=Requests(Given(tokens=tokens), attributes=bright))
    tasks = frozenset({"text_to_image"})
    return Dataset("toy", SHAPE, split, split, split, "here", "none", tasks=tasks, conditions=CONDITIONS)  # type: ignore


def trained(folder: Path, steps: int, stops: tuple[int, ...] = (), config: Config = SMALL) -> Text2Image:
    budget = Budget(images=steps * config.training.batch_size)
    for stop in stops:
        trainer.Trainer(built(config), toy(), 0, budget, folder, task="text_to_image").run(stop_after=stop)
    model = built(config)
    trainer.Trainer(model, toy(), 0, budget, folder, task="text_to_image").run()
    return model


def test_it_learns_to_draw_what_words_say(tmp_path: Path) -> None:
    fast = dataclasses.replace(SMALL, lr_generator=2e-3, lr_discriminator=2e-3)
    model, data = trained(tmp_path, 250, config=fast), toy()
    requests = data.test.requests
    assert requests is not None
    assert requests.attributes is not None
    with torch.no_grad():
        images = model.sample(200, Draw(), Noise(9), requests.at(0, 200).given).double()
    halves = torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1) > 120
    assert float((halves == requests.attributes[:200].bool()).all(1).double().mean()) > 0.9, "chance is a quarter"


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole, pieces = trained(tmp_path / "a", 20), trained(tmp_path / "b", 20, (3, 11))
    for (name, ours), theirs in zip(whole.state_dict().items(), pieces.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_missing_captions_unknown_words_and_bad_choices_are_refused() -> None:
    model = built().eval()
    tokens = torch.ones(2, 4, dtype=torch.int64)
    with pytest.raises(UserError, match="given tokens"):
        model.sample(2, Draw(), Noise(0), Given(labels=torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(UserError, match=r"given tokens of 0 \.\. 5, got 1 \.\. 6"):
        model.sample(2, Draw(), Noise(0), Given(tokens=tokens + torch.tensor([0, 0, 0, 5])))
    with pytest.raises(UserError, match="expected 3 rows"):
        model.sample(3, Draw(), Noise(0), Given(tokens=tokens))
    with pytest.raises(UserError, match="no vocabulary"):
        trainer.build(MODEL, SHAPE, SMALL, 0, Conditions())
    with pytest.raises(UserError, match=r"text2image\.width"):
        Config(width=0)
    with pytest.raises(UserError, match=r"text2image\.interpolation"):
        Config(interpolation=-1.0)
    with pytest.raises(UserError, match=r"text2image\.augmentation"):
        Config(augmentation=-0.1)
    with pytest.raises(UserError, match=r"text2image\.matching"):
        Config(matching=0.0)
    with pytest.raises(UserError, match=r"batch_size"):
        Config(training=Training(batch_size=1))


@pytest.mark.parametrize(
    "shape", [ImageShape(1, 3, 3, 2), ImageShape(1, 28, 28, 256), ImageShape(3, 32, 32, 256), ImageShape(3, 5, 17, 9)]
)
def test_networks_are_convolutions_with_the_text_beside_z_and_beside_the_smallest_map(shape: ImageShape) -> None:
    """Section 4.1 of the paper."""
    model = built(shape=shape)
    text = model.encoder(torch.ones(5, 4, dtype=torch.int64))
    images = model.generator(torch.randn(5, model.latent), text)
    assert images.shape == (5, *shape.chw)
    first = next(layer for layer in model.generator.modules() if isinstance(layer, nn.ConvTranspose2d))
    assert first.in_channels == SMALL.latent + SMALL.compressed
    seen = model.discriminator.look(images)
    assert max(seen.shape[2:]) <= 4
    assert model.discriminator.joint.in_channels == seen.shape[1] + SMALL.compressed
    assert model.discriminator.joint.kernel_size == (1, 1)
    assert model.discriminator(images, text).shape == (5,)

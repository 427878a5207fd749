"""CycleGAN: its losses by hand, the pool of fifty, exact resume, patches, and both directions."""

from __future__ import annotations

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
from baselines.gans.cyclegan import MODEL, Config, CycleGan, Pool, discriminator_loss
from baselines.given import Requests
from baselines.nets.translation import Block, image_to_image, image_to_patches
from baselines.types import Budget, ImageShape

SHAPE = ImageShape(1, 8, 8, 256)
SMALL = Config(width=4, blocks=1, patch_width=4)


def images_of(n: int, seed: int, shape: ImageShape = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=generator).to(torch.uint8)


def batch_of(n: int = 6) -> Batch:
    return Batch(images_of(n, 1), given=Given(images=images_of(n, 2)))


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def built(config: Config = SMALL, shape: ImageShape = SHAPE) -> CycleGan:
    model = trainer.build(MODEL, shape, config, 0, Conditions(source=shape))
    assert isinstance(model, CycleGan)
    return model


# The objective (Zhu et al. 2017, eqs. 1 to 3, sections 4 and 5.2)


def test_the_generators_loss_is_adversarial_plus_ten_cycles_plus_five_identities() -> None:
    assert (Config().cycle, Config().identity, Config().pool) == (10, 0.5, 50)
    model, batch = built(), batch_of()
    assert batch.given is not None
    assert batch.given.images is not None
    x, y = to_signed(batch.given.images, 256), to_signed(batch.images, 256)
    found = model.generators_loss(batch, context())
    to_y, to_x = model.to_target(x), model.to_source(y)
    fools = ((model.target_discriminator(to_y) - 1) ** 2).mean() + ((model.source_discriminator(to_x) - 1) ** 2).mean()
    cycle = (model.to_source(to_y) - x).abs().mean() + (model.to_target(to_x) - y).abs().mean()
    identity = (model.to_target(y) - y).abs().mean() + (model.to_source(x) - x).abs().mean()
    assert min(part.item() for part in (fools, cycle, identity)) > 0.1
    torch.testing.assert_close(found.total, fools + 10 * cycle + 5 * identity)
    torch.testing.assert_close(found.parts["cycle"], cycle)


def test_networks_that_change_nothing_close_the_cycle_and_keep_the_identity() -> None:
    model, batch = built(), batch_of()
    model.to_target = model.to_source = nn.Sequential()
    parts = model.generators_loss(batch, context()).parts
    assert float(parts["cycle"]) == float(parts["identity"]) == 0


def test_the_discriminators_loss_at_its_optimum_is_that_of_least_squares() -> None:
    """D* = p / (p + q) (Mao et al. 2017, eq. 5 with a = 0, b = 1), where the loss is sum pq / (p + q) / 2."""
    p, q = torch.tensor([4.0, 3, 2, 1]) / 10, torch.tensor([1.0, 1, 1, 7]) / 10
    scores = (p / (p + q)).requires_grad_()
    points = torch.arange(4)
    real, fake = points.repeat_interleave((10 * p).long()), points.repeat_interleave((10 * q).round().long())
    loss = discriminator_loss(scores[real], scores[fake])
    assert loss.item() == pytest.approx(float((p * q / (p + q)).sum() / 2))
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(gradient, torch.zeros(4), atol=1e-6, rtol=0)


def test_discriminators_compare_real_images_of_a_domain_with_pooled_translations_into_it() -> None:
    model, batch = built(), batch_of(4)
    assert batch.given is not None
    assert batch.given.images is not None
    x, y = to_signed(batch.given.images, 256), to_signed(batch.images, 256)
    found = model.discriminators_loss(batch, context())
    for name, real, fake, judge in (
        ("of_targets", y, model.to_target(x), model.target_discriminator),
        ("of_sources", x, model.to_source(y), model.source_discriminator),
    ):
        expected = (((judge(real) - 1) ** 2).mean() + (judge(fake) ** 2).mean()) / 2
        torch.testing.assert_close(found.parts[name], expected)
    assert int(model.target_pool.filled) == int(model.source_pool.filled) == 4


def test_gradients_reach_all_of_both_generators_and_stay_off_the_generators_in_the_discriminators_turn() -> None:
    model = built()
    model.generators_loss(batch_of(), context()).total.backward()
    for network in (model.to_target, model.to_source):
        assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in network.parameters())
    model.zero_grad()
    model.discriminators_loss(batch_of(), context()).total.backward()
    assert all(p.grad is None for net in (model.to_target, model.to_source) for p in net.parameters())
    for judge in (model.target_discriminator, model.source_discriminator):
        assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in judge.parameters())


# The pool (section 4)


def numbered(first: int, n: int) -> Tensor:
    return (first + torch.arange(n)).float().view(-1, 1, 1, 1)


def test_the_pool_holds_fifty_and_gives_old_images_back_half_of_the_time() -> None:
    pool, generator = Pool(50, (1, 1, 1)), torch.Generator().manual_seed(0)
    held: list[float] = []
    old = shown_after = 0
    for step in range(200):
        new = numbered(10 * step, 10)
        coins, places = torch.rand(10, generator=generator), torch.randint(50, (10,), generator=generator)
        shown = pool.exchange(new, coins, places)
        expected = []
        for image, coin, place in zip(new.flatten().tolist(), coins.tolist(), places.tolist(), strict=True):
            if len(held) < 50:
                held.append(image)
                expected.append(image)
            elif coin < 0.5:
                expected.append(held[place])
                held[place] = image
            else:
                expected.append(image)
        assert shown.flatten().tolist() == expected
        assert pool.images.flatten()[: len(held)].tolist() == held
        if step >= 5:
            shown_after += 10
            old += int((shown != new).sum())
    assert len(held) == int(pool.filled) == 50
    assert old / shown_after == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / shown_after))


def test_the_discriminators_are_shown_older_translations_once_the_pool_is_full() -> None:
    model = built(Config(width=4, blocks=1, patch_width=4, pool=5))
    seen: list[Tensor] = []
    model.target_discriminator.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for step in range(12):
        before = model.target_pool.images.clone()
        seen.clear()
        model.discriminators_loss(Batch(images_of(4, step), given=Given(images=images_of(4, 50 + step))), context(step))
        new = model.to_target(to_signed(images_of(4, 50 + step), 256)).detach()
        fake = seen[1]
        for image in fake:
            choices = torch.cat([new, before])
            assert float((choices - image).flatten(1).abs().max(1).values.min()) < 1e-6
        if step == 11:
            assert not torch.allclose(fake, new)


def test_training_that_was_interrupted_ends_with_the_same_weights_and_pools(tmp_path: Path) -> None:
    config = Config(width=4, blocks=1, patch_width=4, pool=6, training=Training(batch_size=4, ema_decay=0.9))
    split = Split(images_of(20, 3), requests=Requests(Given(images=images_of(15, 4)), aligned=False))
    told = {"tasks": frozenset({"translation"}), "conditions": Conditions(source=SHAPE)}
    data = Dataset("toy", SHAPE, split, split, split, "here", "none", **told)  # type: ignore[arg-type]

    def run(folder: Path, stops: tuple[int | None, ...]) -> dict[str, Tensor]:
        for stop in stops:
            model = built(config)
            budget = Budget(images=40)
            trainer.Trainer(model, data, 0, budget, folder, task="translation").run(stop_after=stop)
        return model.state_dict()

    whole, resumed = run(tmp_path / "whole", (None,)), run(tmp_path / "parts", (3, 7, None))
    assert int(whole["target_pool.filled"]) == 6
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


# Networks (section 7.2 of the paper)


@pytest.mark.parametrize(("down", "side"), [(1, 12), (2, 26)])
def test_a_discriminator_judges_patches(down: int, side: int) -> None:
    network = image_to_patches((48, 48), 1, 4, down, 0.2)
    for i, layer in enumerate(network):
        if isinstance(layer, nn.InstanceNorm2d):
            network[i] = nn.Identity()  # it looks at the whole map
    x = torch.randn(1, 1, 48, 48, requires_grad=True)
    judged = network(x)
    assert judged.shape[2:] == (48 // 2**down, 48 // 2**down)
    (gradient,) = torch.autograd.grad(judged[0, 0, judged.shape[2] // 2, judged.shape[3] // 2], x)
    rows = gradient[0, 0].abs().amax(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == side


@pytest.mark.parametrize("size", [(3, 3), (5, 17), (8, 8), (28, 28), (3, 40)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("down", [0, 1, 2])
def test_a_generator_keeps_size_and_channels_and_each_image_to_itself(
    size: tuple[int, int], channels: int, down: int
) -> None:
    torch.manual_seed(0)
    network = image_to_image(size, channels, channels, 4, 1, down)
    x = torch.rand(3, channels, *size) * 2 - 1
    images = network(x)
    assert images.shape == x.shape
    assert float(images.detach().abs().max()) < 1
    torch.testing.assert_close(network(x[1:2])[0], images[1], rtol=1e-4, atol=1e-5)
    inside: list[Tensor] = []
    blocks = [layer for layer in network if isinstance(layer, Block)]
    blocks[0].register_forward_pre_hook(lambda module, args: inside.append(args[0]))
    network(x)
    assert inside[0].shape[1:] == (4 * 2**down, *(-(-side // 2**down) for side in size))


def test_instance_norm_is_in_all_layers_but_the_first_and_last_of_a_discriminator_and_the_last_of_a_generator() -> None:
    model = built(Config(blocks=2, down=1, patch_down=2), ImageShape(1, 32, 32, 256))
    for network, bare in ((model.target_discriminator, 2), (model.to_target, 1)):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
        assert len(norms) == len(layers) - bare
        assert all(
            float(m.weight.detach().std()) == pytest.approx(0.02, rel=0.1) for m in layers if m.weight.numel() > 2000
        )


# Images


def test_both_directions_are_deterministic_and_round_their_networks() -> None:
    model = built().eval()
    x = images_of(5, 9)
    with torch.no_grad():
        there, again = model.sample(5, Draw(), Noise(0), Given(images=x)), model.translate(x)
        assert torch.equal(there, again)
        for network, carry in ((model.to_target, model.translate), (model.to_source, model.back)):
            level = (network(to_signed(x, 256)) + 1) * 127.5
            assert float((carry(x).float() - level).abs().max()) <= 0.5 + 1e-4


def test_domains_may_differ_in_levels_and_not_in_size() -> None:
    few = ImageShape(1, 8, 8, 17)
    model = trainer.build(MODEL, SHAPE, SMALL, 0, Conditions(source=few)).eval()
    assert isinstance(model, CycleGan)
    with torch.no_grad():
        ends = model.translate(images_of(3, 0, few)), model.back(images_of(3, 0))
    assert int(ends[0].max()) > 16 >= int(ends[1].max())
    for wrong in (Conditions(), Conditions(source=ImageShape(1, 4, 4, 256))):
        with pytest.raises(UserError, match=r"cyclegan: expected source images of \(1, 8, 8\)"):
            trainer.build(MODEL, SHAPE, SMALL, 0, wrong)


def test_pictures_show_source_translation_the_way_back_and_the_answer_where_it_is_known() -> None:
    model = built().eval()
    x, answers = images_of(4, 5), images_of(4, 6)
    (strip,) = model.pictures_of(Requests(Given(images=x), answers=answers), Noise(0))
    assert strip.columns == ("source", "translated", "and back", "right answer")
    with torch.no_grad():
        there = model.translate(x)
        for i, expected in enumerate((x, there, model.back(there), answers)):
            assert torch.equal(strip.images[:, i], expected)
    (strip,) = model.pictures_of(Requests(Given(images=x)), Noise(0))
    assert strip.columns == ("source", "translated", "and back")


def test_a_generator_learns_from_domains_alone_what_sets_them_apart(tmp_path: Path) -> None:
    """Bright shapes and dim ones, never the same: the shapes stay, and their ink is dimmed."""

    def shapes(n: int, seed: int) -> Tensor:
        coarse = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) < 0.5
        return (F.interpolate(coarse.float(), scale_factor=2) * 255).to(torch.uint8)

    config = Config(width=8, blocks=1, patch_width=8, training=Training(batch_size=8, ema_decay=0.9))
    train = Split(shapes(200, 0) // 2, requests=Requests(Given(images=shapes(200, 1)), aligned=False))
    told = {"tasks": frozenset({"translation"}), "conditions": Conditions(source=SHAPE)}
    data = Dataset("toy", SHAPE, train, train, train, "here", "none", **told)  # type: ignore[arg-type]
    model = built(config)
    trainer.Trainer(model, data, 0, Budget(images=1600), tmp_path, task="translation").run()
    x = shapes(100, 2)
    with torch.no_grad():
        error = (model.translate(x).float() - (x // 2).float()).abs().mean() / 255
        untouched = (x.float() - (x // 2).float()).abs().mean() / 255
    assert float(untouched) > 0.2
    assert float(error) < 0.25 * float(untouched)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pool": 0}, r"cyclegan\.pool: expected at least 1, got 0"),
        ({"width": 0}, r"cyclegan\.width"),
        ({"patch_down": 0}, r"cyclegan\.patch_down"),
        ({"cycle": -1.0}, r"cyclegan\.cycle: expected 0 or more"),
        ({"identity": math.nan}, r"cyclegan\.identity"),
    ],
)
def test_bad_choices_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config(**values)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="steps"):
        built().sample(1, Draw(steps=3), Noise(0), Given(images=images_of(1, 0)))

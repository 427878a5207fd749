"""PuzzleGAN: no order and no place goes in, three losses by their formulas, and a discriminator of mixtures."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines import trainer
from baselines.contract import Batch, Context, Draw, Given, Noise
from baselines.data.dataset import Dataset
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans import puzzlegan
from baselines.gans.puzzlegan import MODEL, Config, PuzzleGan
from baselines.types import Budget, Conditions, ImageShape
from tests.models.conditions import conditions_for, requests_for
from tests.models.test_contract import dataset_of, images_of

SHAPE = ImageShape(3, 16, 16, 256)
SMALL = Config(code=24, latent=6, width=8, widest=16)


def model_of(shape: ImageShape = SHAPE, config: Config = SMALL) -> PuzzleGan:
    model = trainer.build(MODEL, shape, config, 0, conditions_for("completion", shape))
    assert isinstance(model, PuzzleGan)
    return model


def batch_of(shape: ImageShape = SHAPE, n: int = 8) -> Batch:
    images = images_of(shape, n)
    requests = requests_for("completion", images)
    assert requests is not None
    return Batch(images, given=requests.given, masks=requests.masks)


def context() -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(0), torch.device("cpu"))


def patches_of(batch: Batch) -> Tensor:
    assert batch.given is not None
    assert batch.given.patches is not None
    return batch.given.patches


# What goes in


def test_the_code_of_patches_is_a_sum_and_does_not_hang_on_their_order() -> None:
    model = model_of().eval()
    patches = torch.rand(5, 4, 3, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    generator = model.generator
    code = generator.embed(patches)
    assert float(code.detach().std(0).min()) > 0, "it hangs on the patches"
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(generator.embed(patches[:, list(order)]), code, rtol=1e-5, atol=1e-6)
    singles = sum(generator.embed(patches[:, k : k + 1]) for k in range(4))
    torch.testing.assert_close(singles, code, rtol=1e-5, atol=1e-6)


def test_images_and_masks_are_those_of_any_order_of_the_patches() -> None:
    model, patches = model_of().eval(), patches_of(batch_of())
    image, mask = model.place(8, Draw(), Noise(3), Given(patches=patches))
    other, same = model.place(8, Draw(), Noise(3), Given(patches=patches.flip(1)))
    assert float((image.int() - other.int()).abs().max()) <= 1
    torch.testing.assert_close(mask, same, rtol=1e-4, atol=1e-5)


def test_noise_changes_the_image_and_not_where_the_patches_are_put() -> None:
    model, given = model_of().eval(), Given(patches=patches_of(batch_of()))
    image, mask = model.place(8, Draw(), Noise(3), given)
    other, same = model.place(8, Draw(), Noise(4), given)
    assert not torch.equal(image, other)
    assert torch.equal(mask, same)
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1
    assert torch.equal(model.sample(8, Draw(), Noise(3), given), image)


def test_masks_are_given_in_training_alone(tmp_path: Path) -> None:
    assert "masks" not in {field.name for field in dataclasses.fields(Given)}
    model, data = model_of(), dataset_of(SHAPE, "completion")
    run = trainer.Trainer(model, data, 0, Budget(images=64), tmp_path, task="completion")
    batch = run.batches.at(5, 8)
    requests = data.train.requests
    assert batch.masks is not None
    assert requests is not None
    assert requests.given.patches is not None
    assert requests.masks is not None
    for patches, mask, image in zip(patches_of(batch), batch.masks, batch.images, strict=True):
        row = int((data.train.images == image).flatten(1).all(1).float().argmax())
        assert torch.equal(patches, requests.given.patches[row])
        assert torch.equal(mask, requests.masks[row])
    with pytest.raises(UserError, match="masks"):
        model.generator_loss(dataclasses.replace(batch, masks=None), context())


def test_fewer_patches_will_do_and_ones_of_another_size_will_not() -> None:
    model, patches = model_of().eval(), patches_of(batch_of())
    assert model.sample(8, Draw(), Noise(0), Given(patches=patches[:, :1])).shape == (8, *SHAPE.chw)
    with pytest.raises(UserError, match=r"expected patches to be given as \(B, K, 3, 4, 4\), got \(8, 2, 3, 4, 3\)"):
        model.sample(8, Draw(), Noise(0), Given(patches=patches[..., :3]))
    with pytest.raises(UserError, match="digits-puzzle"):
        PuzzleGan(SHAPE, SMALL, Conditions())


# Losses


def test_negatives_are_the_drawn_image_and_two_mixtures_with_the_image_before() -> None:
    real, drawn = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2), torch.full((4, 1, 2, 2), 9.0)
    mask = torch.tensor([[1.0, 0], [0, 0]]).expand(4, 1, 2, 2)
    found = puzzlegan.negatives(real, mask, drawn)
    assert list(found) == ["fake", "other_part", "other_ground"]
    assert torch.equal(found["fake"], drawn)
    for i in range(4):
        other = float(real[i - 1, 0, 0, 0])
        assert found["other_part"][i, 0].tolist() == [[other, i], [i, i]]
        assert found["other_ground"][i, 0].tolist() == [[i, other], [other, other]]


def test_the_discriminator_accepts_real_images_and_refuses_the_generated_one_and_both_mixtures() -> None:
    model, batch, seen = model_of(), batch_of(), []
    answers = iter((2.0, -1.0, 0.5, 3.0))  # D's logits on what it sees, in turn

    def forward(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.full((len(images),), next(answers))

    model.discriminator.forward = forward  # type: ignore[method-assign, assignment]
    losses = model.discriminator_loss(batch, context())
    real = to_signed(batch.images, 256)
    assert batch.masks is not None
    expected = puzzlegan.negatives(real, batch.masks.float(), seen[1])
    for image, wanted in zip(seen, (real, seen[1], expected["other_part"], expected["other_ground"]), strict=True):
        torch.testing.assert_close(image, wanted, rtol=0, atol=2 / 255 + 1e-6)  # half a level of noise, twice
    p = torch.sigmoid(torch.tensor([2.0, -1.0, 0.5, 3.0]))
    assert float(losses.total) == pytest.approx(float(-p[0].log() - (1 - p[1:]).log().sum()), rel=1e-5)


def test_the_generators_losses_are_l1_of_mask_and_parts_and_the_non_saturating_one() -> None:
    config = dataclasses.replace(SMALL, mask_weight=3.0, appearance_weight=7.0, inside_weight=1.0, dropout=0.0)
    model, batch = model_of(config=config), batch_of()
    placed: list[tuple[Tensor, Tensor]] = []
    logits: list[Tensor] = []
    model.generator.register_forward_hook(lambda module, args, out: placed.append(out))
    model.discriminator.register_forward_hook(lambda module, args, out: logits.append(out))
    losses = model.generator_loss(batch, context())
    (image, mask), true = placed[0], batch.masks
    assert true is not None
    real, true = to_signed(batch.images, 256), true.float()
    l1 = {"mask": F.l1_loss(mask, true), "appearance": F.l1_loss(image * mask, real * true)}
    for name, value in l1.items():
        torch.testing.assert_close(losses.parts[name], value)
    adversarial = -torch.sigmoid(logits[0]).log().mean()
    torch.testing.assert_close(losses.total, adversarial + 3 * l1["mask"] + 7 * l1["appearance"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_a_weight_inside_moves_the_threshold_of_the_best_mask(weight: float) -> None:
    for p in (0.1, 0.3, 0.6, 0.9):
        true = (torch.arange(10) < 10 * p).float().view(10, 1, 1, 1)
        loss = [float(puzzlegan.spatial_loss(torch.full_like(true, v), true, weight)) for v in (0.0, 0.5, 1.0)]
        assert loss.index(min(loss)) == (2 if p > 1 / (1 + weight) else 0)


def test_all_that_draws_gets_a_gradient_and_the_discriminator_its_own() -> None:
    model, batch = model_of(), batch_of()
    model.generator_loss(batch, context()).total.backward()
    for name, parameter in model.generator.named_parameters():
        assert parameter.grad is not None, name
    model.zero_grad()
    model.discriminator_loss(batch, context()).total.backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert [phase.modules for phase in model.phases()] == [("discriminator",), ("generator",)]


# Training


def short(folder: Path, data: Dataset, stops: tuple[int | None, ...]) -> PuzzleGan:
    config = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, batch_size=8))
    for stop in stops:
        model = model_of(config=config)
        trainer.Trainer(model, data, 0, Budget(images=48), folder, task="completion").run(stop)
    return model


def test_training_that_was_interrupted_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = dataset_of(SHAPE, "completion")
    whole, parts = short(tmp_path / "a", data, (None,)), short(tmp_path / "b", data, (2, 5, None))
    for (name, ours), theirs in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_it_learns_where_patches_lie(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 1, 8, 8), generator=generator).to(torch.uint8)
    masks = torch.zeros(64, 1, 8, 8, dtype=torch.bool)
    bright = torch.randint(4, (64,), generator=generator)
    for i, where in enumerate(bright.tolist()):  # a patch's brightness tells its quarter
        rows, columns = slice(4 * (where // 2), 4 * (where // 2) + 4), slice(4 * (where % 2), 4 * (where % 2) + 4)
        images[i, 0, rows, columns] = 80 * where
        masks[i, 0, rows, columns] = True
    given = Given(patches=(80 * bright).to(torch.uint8).view(64, 1, 1, 1, 1).expand(-1, 1, 1, 4, 4).contiguous())
    data = dataset_of(ImageShape(1, 8, 8, 256), "completion")
    assert data.train.requests is not None
    requests = dataclasses.replace(data.train.requests, given=given, masks=masks)
    train = dataclasses.replace(data.train, images=images, attributes=None, requests=requests)
    data = dataclasses.replace(data, train=train, conditions=Conditions(patches=(1, 4)))
    config = dataclasses.replace(SMALL, lr_generator=3e-3, inside_weight=3.0)
    model = trainer.build(MODEL, data.shape, config, 0, data.conditions)
    assert isinstance(model, PuzzleGan)
    trainer.Trainer(model, data, 0, Budget(images=6400), tmp_path, task="completion").run()
    _, mask = model.place(64, Draw(), Noise(0), given)
    both, either = ((mask > 0.5) & masks).sum(), ((mask > 0.5) | masks).sum()
    assert float(both / either) > 0.9, "a mask that is the same for all would have a quarter"


# Pictures and choices


def test_pictures_show_patches_places_and_images_in_the_order_of_the_requests() -> None:
    model = model_of().eval()
    requests = requests_for("completion", images_of(SHAPE))
    assert requests is not None
    requests = dataclasses.replace(requests, answers=images_of(SHAPE))
    solved, others = model.pictures_of(requests, Noise(1))
    assert solved.columns == (
        "patch 1", "patch 2", "where it puts them", "where they lay", "its image", "the true image",
    )  # fmt: skip
    patches = requests.given.patches
    assert patches is not None
    assert requests.masks is not None
    assert torch.equal(solved.images[:, 0, :, ::4, ::4], patches[:6, 0]), "four times as large"
    assert torch.equal(solved.images[:, 3], (requests.masks[:6] * 255).to(torch.uint8).expand(-1, 3, -1, -1))
    assert torch.equal(solved.images[:, 5], images_of(SHAPE)[:6])
    assert not torch.equal(others.images[:, 0], others.images[:, 1])
    plain = dataclasses.replace(requests, answers=None, masks=None)
    assert model.pictures_of(plain, Noise(1))[0].columns == ("patch 1", "patch 2", "where it puts them", "its image")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"code": 0}, r"puzzlegan\.code"),
        ({"mask_weight": -1.0}, r"puzzlegan\.mask_weight"),
        ({"appearance_weight": float("nan")}, r"puzzlegan\.appearance_weight"),
        ({"inside_weight": 0.0}, r"puzzlegan\.inside_weight"),
        ({"dropout": 1.0}, r"puzzlegan\.dropout"),
    ],
)
def test_bad_choices_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **values)  # type: ignore[arg-type]

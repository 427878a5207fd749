"""Trains the classifiers that serve as extractors and judges: `python -m bench.metrics.train_classifier digits`.

Learns on the train split, picks the epoch on the validation split, and reports accuracy on the test split,
which is looked at once. The same command with the same torch on one CPU thread makes the same file.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from baselines.data import catalogue
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import to_unit
from baselines.noise import derive_seed
from bench.metrics.classifier import FOLDER, SPECS, Classifier, Spec, batches

TOTAL_VARIANCE = 384.0
"""Trace of the covariance of the scaled features over the train split. It sets the unit of the Fréchet distance: on
digits, about 1 between the development and the test split and about 100 to independent pixels."""


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained."""

    epochs: int
    batch_size: int = 64
    lr: float = 2e-3  # Adam's, down to 0 by half a cosine
    weight_decay: float = 1e-4
    dropout: float = 0.0
    degrees: float = 5.0  # largest rotation of the augmentation
    shift: float = 0.05  # largest shift, in image widths
    zoom: float = 0.05  # largest relative change of size
    outside: str = "zeros"  # what comes in at the edges: the background, or border, where that is not 0
    recoloured: float = 0.0  # share below 1 of images in random other colours; of these the first head alone learns


RECIPES: Mapping[str, Recipe] = {
    "digits-cnn": Recipe(epochs=60),
    "mnist-cnn": Recipe(epochs=10, batch_size=128),
    "digits-large-cnn": Recipe(epochs=60),
    "mnist-large-cnn": Recipe(epochs=12, batch_size=128),
    "digits-outline-cnn": Recipe(epochs=100),
    "mnist-outline-cnn": Recipe(epochs=8, batch_size=128),
    "digits-to-mnist-cnn": Recipe(epochs=8, batch_size=128),
    "digits-domains-cnn": Recipe(epochs=60, outside="border"),
    "mnist-domains-cnn": Recipe(epochs=6, batch_size=128, outside="border"),
    # pairs of digit and ink that are held out must look no stranger than others
    "digits-captioned-cnn": Recipe(epochs=40, outside="border", recoloured=0.5),
    "mnist-captioned-cnn": Recipe(epochs=5, batch_size=128, outside="border", recoloured=0.5),
}


def train(spec: Spec, recipe: Recipe, data: Dataset, seed: int) -> Classifier:
    """The network of the epoch with the lowest validation loss, its features scaled."""
    torch.manual_seed(derive_seed(seed, "init"))
    net = Classifier(spec)
    generator = torch.Generator().manual_seed(derive_seed(seed, "train"))
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    images, targets = to_unit(data.train.images, data.shape.levels), _targets(data.train, spec)
    steps = recipe.epochs * (len(images) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
    best, best_loss = copy.deepcopy(net.state_dict()), math.inf
    for epoch in range(recipe.epochs):
        net.train()
        order = torch.randperm(len(images), generator=generator)
        for index in torch.split(order, recipe.batch_size)[: steps // recipe.epochs]:
            x, other = _augmented(images[index], recipe, generator), None
            if recipe.recoloured:
                other = torch.rand(len(x), generator=generator) < recipe.recoloured
                x = torch.where(other.view(-1, 1, 1, 1), recoloured(x, generator), x)
            _, logits = net(x, recipe.dropout)
            optimiser.zero_grad()
            torch.autograd.backward(_loss(logits, targets[index], spec, other))
            optimiser.step()
            schedule.step()
        loss, accuracy, _ = evaluate(net, data.val, data.shape.levels, spec)
        if loss < best_loss:
            best, best_loss = copy.deepcopy(net.state_dict()), loss
        told = "  ".join(f"{name} {value:.4f}" for name, value in accuracy.items())
        print(f"epoch {epoch + 1:3d}/{recipe.epochs}  val loss {loss:.4f}  accuracy {told}", flush=True)
    net.load_state_dict(best)
    _, _, features = evaluate(net, data.train, data.shape.levels, spec)
    net.scale.fill_(math.sqrt(TOTAL_VARIANCE / float(features.double().var(0).sum())))
    return net


def _augmented(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) turned, shifted and zoomed at random."""

    def within(limit: float) -> Tensor:
        return (2 * torch.rand(len(x), generator=generator) - 1) * limit

    angle, zoom = within(math.radians(recipe.degrees)), 1 + within(recipe.zoom)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    rows = torch.stack([cos, -sin, within(2 * recipe.shift), sin, cos, within(2 * recipe.shift)], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode=recipe.outside)


def recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) of [0, 1] with its channels in a random order, each channel inverted or not."""
    order = torch.rand(len(x), x.shape[1], generator=generator).argsort(1)
    inverted = torch.rand(len(x), x.shape[1], 1, 1, generator=generator) < 0.5
    x = x[torch.arange(len(x))[:, None], order]
    return torch.where(inverted, 1 - x, x)


@torch.no_grad()
def evaluate(net: Classifier, split: Split, levels: int, spec: Spec) -> tuple[float, dict[str, float], Tensor]:
    """Mean cross-entropy, accuracy of each head and of all at once, and unscaled features (N, 64), of a split."""
    net.eval()
    found = [net(x) for x in batches(split.images, levels, "cpu")]
    features, logits = (torch.cat(part) for part in zip(*found, strict=True))
    targets = _targets(split, spec)
    right = torch.stack([part.argmax(1) for part in _parts(logits, spec)], 1) == targets
    accuracy = {name: float(right[:, i].double().mean()) for i, (name, _) in enumerate(spec.heads)}
    if len(spec.heads) > 1:
        accuracy["all"] = float(right.all(1).double().mean())
    return float(_loss(logits, targets, spec)), accuracy, features


def _loss(logits: Tensor, targets: Tensor, spec: Spec, other: Tensor | None = None) -> Tensor:
    """Cross-entropy, summed over the heads; of the `other` images, (B,) bool, the first head's alone."""
    parts = _parts(logits, spec)
    losses = [F.cross_entropy(parts[0], targets[:, 0])]
    for i, part in enumerate(parts[1:], start=1):
        own = slice(None) if other is None else ~other
        losses.append(F.cross_entropy(part[own], targets[own, i]))
    return torch.stack(losses).sum()


def _parts(logits: Tensor, spec: Spec) -> tuple[Tensor, ...]:
    return torch.split(logits, [values for _, values in spec.heads], dim=1)


def _targets(split: Split, spec: Spec) -> Tensor:
    """What each head is to say, (N, heads); a last one that the attributes do not tell is the class."""
    found = split.attributes if spec.attributes else split.labels
    if found is None:
        what = "attributes" if spec.attributes else "labels"
        raise ValueError(f"training a classifier: expected a data set with {what}, got none")
    if not spec.attributes:
        return found[:, None]
    if found.shape[1] < len(spec.heads) and split.labels is not None:
        return torch.cat([found, split.labels[:, None]], 1)
    return found


def write(net: Classifier, spec: Spec, recipe: Recipe, data: Dataset, seed: int, folder: Path) -> dict[str, Any]:
    """Weights as safetensors and a manifest that says where they come from."""
    content = save_tensors({name: value.contiguous() for name, value in net.state_dict().items()})
    splits = {"train": data.train, "val": data.val, "test": data.test}
    manifest = {
        "name": spec.name,
        "dataset": data.name,
        "data_fingerprint": data.fingerprint(),
        "split": data.note,
        **_accuracies(net, splits, data.shape.levels, spec),
        "images": {name: len(split) for name, split in splits.items()},
        "parameters": sum(p.numel() for p in net.parameters()),
        "total_variance": TOTAL_VARIANCE,
        "recipe": asdict(recipe),
        "seed": seed,
        "command": f"python -m bench.metrics.train_classifier {data.name} --seed {seed}",
        "torch": torch.__version__.split("+")[0],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{spec.name}.safetensors").write_bytes(content)
    (folder / f"{spec.name}.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _accuracies(net: Classifier, splits: Mapping[str, Split], levels: int, spec: Spec) -> dict[str, Any]:
    """By split; of several heads the share of images of which all are right, and each one's on the test split."""
    found = {name: evaluate(net, split, levels, spec)[1] for name, split in splits.items()}
    if not spec.attributes:
        return {"accuracy": {name: round(told["class"], 5) for name, told in found.items()}}
    whole = {name: round(told.get("all", next(iter(told.values()))), 5) for name, told in found.items()}
    return {"accuracy": whole, "of_attributes": {name: round(value, 5) for name, value in found["test"].items()}}


def main() -> None:
    """Parse the command line, train, write, print the manifest."""
    specs = {spec.dataset: spec for spec in SPECS.values()}
    parser = argparse.ArgumentParser(description="Train the classifier that serves as a data set's extractor.")
    parser.add_argument("dataset", choices=sorted(specs))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's files lie")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights and the manifest")
    given = parser.parse_args()
    torch.set_num_threads(1)
    spec = specs[given.dataset]
    recipe = RECIPES[spec.name]
    data = catalogue.load(given.dataset, given.data_dir)
    net = train(spec, recipe, data, given.seed)
    print(json.dumps(write(net, spec, recipe, data, given.seed, given.out), indent=2))


if __name__ == "__main__":
    main()

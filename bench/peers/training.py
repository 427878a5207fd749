"""Training of a variational autoencoder beside pythae's: the same networks, images in memory, batches and optimiser.

Both trainers score the validation images after each epoch, keep the best weights and save them at the end; neither
writes a checkpoint on the way, averages weights, or changes the learning rate.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.peers.contest import Agreement, Contender, Contest, Entry

GROUP = "Training"
SIDE, LATENT, BATCH, HIDDEN, LR = 28, 16, 64, 512, 1e-3
VALIDATION = 128

Network = Literal["convolutions", "a perceptron"]
SIZES: dict[Network, tuple[int, int]] = {"convolutions": (640, 2), "a perceptron": (1216, 8)}
"""Training images and epochs."""


def _name(network: Network) -> str:
    images, epochs = SIZES[network]
    return f"VAE of {network}, {epochs} epochs of {images} binary images of {SIDE}x{SIDE} pixels, batch {BATCH}"


def binary_digits(images: int, validation: int) -> Any:
    """Digits enlarged to 28x28 and cut at half of the ink."""
    import torch
    from torch.nn import functional as F

    from baselines.data import digits
    from baselines.data.dataset import Dataset, Split
    from baselines.types import ImageShape

    small = digits.load()

    def split(found: torch.Tensor, count: int) -> Split:
        large = F.interpolate(found[:count].float(), size=(SIDE, SIDE), mode="bilinear")
        return Split((large > 8).to(torch.uint8))

    train, val, test = (
        split(small.train.images, images),
        split(small.val.images, validation),
        split(small.test.images, 1),
    )
    return Dataset("binary digits", ImageShape(1, SIDE, SIDE, 2), train, val, test, small.source, "enlarged, binarised")


def our_vae(network: Network, epochs: int) -> Any:
    """Our model without dropout and averages; of its own networks, or of perceptrons of the sizes of pythae's."""
    import torch
    from torch import nn

    from baselines.autoencoders.vae import Config, Vae
    from baselines.contract import Training
    from baselines.types import ImageShape

    training = Training(batch_size=BATCH, ema_decay=0, validations=epochs, validation_images=VALIDATION)
    config = Config(latent=LATENT, width=8, widest=32, dropout=0, lr=LR, warmup=0, decay="constant", training=training)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Vae(ImageShape(1, SIDE, SIDE, 2), config)
        if network == "a perceptron":
            into, out = [nn.Linear(SIDE**2, HIDDEN), nn.ReLU()], [nn.Linear(LATENT, HIDDEN), nn.ReLU()]
            model.encoder = nn.Sequential(nn.Flatten(), *into, nn.Linear(HIDDEN, 2 * LATENT))
            model.decoder = nn.Sequential(*out, nn.Linear(HIDDEN, SIDE**2), nn.Unflatten(1, (1, SIDE, SIDE)))
    return model


def their_vae(ours: Any) -> Any:
    """pythae's VAE with copies of our networks inside, as its documentation shows for networks of one's own."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    config = VAEConfig(input_dim=(1, SIDE, SIDE), latent_dim=LATENT, reconstruction_loss="bce")

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            mean, log_std = self.inner(2 * x - 1).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=2 * log_std)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.inner(z)))

    return VAE(config, Encoder(copy.deepcopy(ours.encoder)), Decoder(copy.deepcopy(ours.decoder)))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """pythae prints a bar and logs; into memory here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def our_training(model: Any, data: Any, epochs: int, folder: Path) -> Callable[[], float]:
    """One run of the trainer as a cell does it, and saved weights; the answer is the bound on validation images."""
    import tempfile

    import torch

    from baselines import checkpoint
    from baselines.contract import Noise
    from baselines.trainer import Trainer
    from baselines.types import Budget

    def work() -> float:
        made = copy.deepcopy(model)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            trainer = Trainer(made, data, 0, Budget(images=epochs * len(data.train)), Path(place))
            trainer.checkpoint_every_s = float("inf")
            trainer.run()
            checkpoint.save(Path(place), "weights", made.state_dict(), {})
        with torch.no_grad():
            return float(made.elbo(data.val.images, Noise(0)).total.mean())

    return work


def their_training(model: Any, data: Any, epochs: int, folder: Path) -> Callable[[], float]:
    """One run of pythae's BaseTrainer; the answer is the loss of its model on the validation images."""
    import tempfile

    import torch
    from pythae.data.datasets import BaseDataset, DatasetOutput
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    sets = [BaseDataset(split.images, torch.zeros(len(split))) for split in (data.train, data.val)]

    def work() -> float:
        made = copy.deepcopy(model)
        with _silent(), tempfile.TemporaryDirectory(dir=folder) as place:
            config = BaseTrainerConfig(
                output_dir=place,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=BATCH,
                num_epochs=epochs,
                learning_rate=LR,
                optimizer_cls="Adam",
                optimizer_params={"fused": True},
                no_cuda=True,
            )
            BaseTrainer(made, *sets, training_config=config).train()
        with torch.no_grad():
            return float(made.eval()(DatasetOutput(data=sets[1].data)).loss)

    return work


def make(folder: Path, network: Network) -> Contest:
    """Both trainers, from the same weights."""
    from bench.measure.memory import keep_freed_memory

    keep_freed_memory()
    images, epochs = SIZES[network]
    data, ours = binary_digits(images, VALIDATION), our_vae(network, epochs)
    theirs = their_vae(ours)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert sizes[0] == sizes[1], f"premise: as many weights, got {sizes}"

    def agree(mine: float, other: float) -> Agreement:
        measure = "relative difference of the bound on validation images, after training in other orders"
        return Agreement(measure, abs(mine - other) / mine, 0.05)

    return Contest(
        _name(network),
        GROUP,
        Contender("trilemma", our_training(ours, data, epochs, folder), "trilemma-bench", note="also notes a curve"),
        (
            Contender(
                "pythae BaseTrainer",
                their_training(theirs, data, epochs, folder),
                "pythae",
                note="fused Adam as ours; also a bar of progress for each epoch, and its networks pickled at the end",
            ),
        ),
        {"pythae BaseTrainer": agree},
        rounds=9 if network == "a perceptron" else 6,
    )


ENTRIES: tuple[Entry, ...] = tuple(Entry(_name(n), GROUP, partial(make, network=n), ("pythae",)) for n in SIZES)

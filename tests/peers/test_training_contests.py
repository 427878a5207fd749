"""The premises of the race of trainers: one function, one loss, as many steps, and both do learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pythae", reason="needs the peers: pip install 'trilemma-bench[peers]'")

from baselines.contract import Noise
from bench.peers import training


@pytest.mark.parametrize("network", training.SIZES)
def test_the_same_weights_have_the_same_loss_and_gradient(network: Any) -> None:
    from pythae.data.datasets import DatasetOutput

    ours = training.our_vae(network, 1).double().train()
    theirs = training.their_vae(ours).double().train()
    theirs._sample_gauss = lambda mean, std: (mean, None)
    x = training.binary_digits(16, 1).train.images
    mean, log_std = ours.posterior(x)
    assert float(log_std.detach().abs().max()) < 3, "premise: nothing is clamped"
    kl = ours.code_prior.divergence(mean, log_std, mean)
    loss = (kl - ours.log_likelihood(x, mean)).mean()
    other = theirs(DatasetOutput(data=x.double())).loss
    torch.testing.assert_close(loss, other)
    loss.backward()
    other.backward()
    last = ours.decoder[-1 if network == "convolutions" else 2]
    torch.testing.assert_close(
        last.weight.grad, theirs.decoder.inner[-1 if network == "convolutions" else 2].weight.grad
    )


@pytest.mark.parametrize("network", training.SIZES)
def test_sizes_are_equal(network: Any) -> None:
    ours = training.our_vae(network, 1)
    theirs = training.their_vae(ours)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_both_trainers_learn_as_much(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, ours = training.binary_digits(256, 64), training.our_vae("a perceptron", 4)
    theirs = training.their_vae(ours)
    with torch.no_grad():
        before = float(ours.elbo(data.val.images, Noise(0)).total.mean())
    mine = training.our_training(ours, data, 4, tmp_path)()
    other = training.their_training(theirs, data, 4, tmp_path)()
    assert mine < 0.8 * before, "premise: it has learned"
    assert abs(mine - other) < 0.1 * mine
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    assert not any(capfd.readouterr()), "nothing is printed"

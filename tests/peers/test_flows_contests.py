"""The premises of the races of flows: equal sizes, one density, one map from noise to draws, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("zuko", reason="needs the peers: pip install 'trilemma-bench[peers]'")
pytest.importorskip("nflows", reason="needs the peers: pip install 'trilemma-bench[peers]'")
pytest.importorskip("normflows", reason="needs the peers: pip install 'trilemma-bench[peers]'")

from bench.peers import conv_flows, equal_flows, flow_weights, flows
from bench.peers.equal_flows import Built

DIMS, HIDDEN = 6, (12, 12)
FAMILIES: dict[str, Callable[[], dict[str, Built]]] = {
    "MAF": lambda: equal_flows.autoregressive("MAF", DIMS, HIDDEN),
    "IAF": lambda: equal_flows.autoregressive("IAF", DIMS, HIDDEN),
    "RealNVP": lambda: equal_flows.realnvp(DIMS, HIDDEN),
    "convolutions": lambda: conv_flows.realnvp(4),
}


def data(built: dict[str, Built]) -> Tensor:
    model = built["trilemma"].model
    assert isinstance(model, equal_flows.Density)
    dims = torch.Size(model.shape).numel()
    return torch.randn(32, dims, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def in_double(built: dict[str, Built]) -> dict[str, Built]:
    for flow in built.values():
        flow.model.double().eval()
    return built


@pytest.fixture(scope="module", params=FAMILIES)
def built(request: Any) -> dict[str, Built]:
    found = in_double(FAMILIES[request.param]())
    assert len(found) == (3 if request.param == "convolutions" else 4)
    return found


def test_log_densities_agree_or_are_known_not_to(built: dict[str, Built]) -> None:
    x = data(built)
    ours = built["trilemma"].log_p(x).detach()
    assert float(ours.std()) > 0.1, "premise: a density that hangs on x"
    for name, flow in built.items():
        theirs = flow.log_p(x).detach()
        agree = torch.allclose(ours, theirs, rtol=1e-6)
        assert agree == (not flow.expected), (name, float((ours - theirs).abs().max()))


def test_every_weight_matters_that_was_copied(built: dict[str, Built]) -> None:
    """Agreement is of the whole network: each layer's weights change the density."""
    x = data(built)
    log_p = built["trilemma"].log_p(x)
    parameters = [p for p in built["trilemma"].model.parameters() if p.dim() > 1 and p.numel() > p.shape[0]]
    grads = torch.autograd.grad(log_p.sum(), parameters)
    assert all(bool(g.any()) for g in grads)


def test_the_same_noise_makes_the_same_draws(built: dict[str, Built]) -> None:
    for flow in built.values():
        flow.model.float()
    torch.manual_seed(5)
    ours = built["trilemma"].sample(8).detach()
    for name, flow in built.items():
        torch.manual_seed(5)
        theirs = flow.sample(8).detach()
        if not flow.expected:
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4, msg=name)
    for flow in built.values():
        flow.model.double()


@pytest.mark.parametrize("kind", ["MAF", "IAF"])
def test_normflows_agrees_once_its_first_layer_has_its_activation(kind: Any) -> None:
    found = in_double(equal_flows.autoregressive(kind, DIMS, HIDDEN))
    theirs = found["normflows"]
    for made in [part for part in theirs.model.modules() if "MADE" in type(part).__name__]:
        made.initial_layer = nn.Sequential(made.initial_layer, nn.ReLU())
    x = data(found)
    torch.testing.assert_close(theirs.log_p(x), found["trilemma"].log_p(x), rtol=1e-5, atol=0)


def test_a_maf_of_other_libraries_is_fast_where_ours_is() -> None:
    """One pass of each network gives a density, D passes a draw: nobody's directions are swapped."""
    for kind, slow in (("MAF", "sample"), ("IAF", "log_p")):
        built = equal_flows.autoregressive(kind, DIMS, HIDDEN)  # type: ignore[arg-type]
        for name in ("zuko", "nflows", "normflows"):
            flow, calls = built[name], 0
            network = next(
                p for p in flow.model.modules() if "MADE" in type(p).__name__ or "MaskedMLP" in type(p).__name__
            )

            def count(*_: Any) -> None:
                nonlocal calls
                calls += 1

            network.register_forward_pre_hook(count)
            spent = {}
            flow.log_p(torch.zeros(2, DIMS))
            spent["log_p"], calls = calls, 0
            flow.sample(2)
            spent["sample"] = calls
            assert spent.pop(slow) >= DIMS, (kind, name)
            assert list(spent.values()) == [1], (kind, name)


def test_units_are_paired_by_degree_once_each() -> None:
    ours, theirs = torch.tensor([1, 1, 2, 3]), torch.tensor([1, 2, 3, 1, 2])
    first, second = flow_weights.partners(ours, theirs)
    assert len(set(second.tolist())) == len(second) == 4
    assert ours[first].tolist() == theirs[second].tolist()


@pytest.mark.parametrize("raw", ["ours_raw", "zuko_raw", "softplus_raw", "sigmoid_raw"])
def test_raw_numbers_make_the_factor(raw: str) -> None:
    from zuko.transforms import MonotonicAffineTransform

    factor = torch.linspace(flow_weights.LEAST, flow_weights.MOST, 7, dtype=torch.float64)
    back: dict[str, Callable[[Tensor], Tensor]] = {
        "ours_raw": lambda r: torch.tanh(r).exp(),
        "zuko_raw": lambda r: MonotonicAffineTransform(torch.zeros(7), r).scale,
        "softplus_raw": lambda r: nn.functional.softplus(r) + 1e-3,
        "sigmoid_raw": lambda r: torch.sigmoid(r + 2) + 1e-3,
    }
    torch.testing.assert_close(back[raw](getattr(flow_weights, raw)(factor)), factor)


@pytest.mark.parametrize("what", ["density", "training", "sampling"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_contest_of_a_tiny_size_agrees(what: Any, family: str) -> None:
    dims = 16 if family == "convolutions" else DIMS
    contest = flows.contest("tiny", what, dims, 8, FAMILIES[family])
    ours = contest.ours.work()
    for peer in contest.peers:
        agreement = contest.agree[peer.name](ours, peer.work())
        assert agreement.holds or agreement.expected, (peer.name, agreement)


def test_training_lowers_the_loss_of_everyone() -> None:
    contest = flows.contest("tiny", "training", DIMS, 64, FAMILIES["MAF"], times=20)
    for contender in (contest.ours, *contest.peers):
        first = float(contender.work())
        assert float(contender.work()) < first, contender.name

"""The metrics' arithmetic beside that of other libraries, on the same ready features in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.contest import Agreement, Contender, Contest, Entry, installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

GROUP = "Metrics of ready features"
DIMS = 2048  # of Inception's features
CLASSES = 1008  # of its logits
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID, the libraries' own numbers

_OURS = "trilemma-bench"


def relative(measure: str, allowed: float, expected: str = "") -> Callable[[Any, Any], Agreement]:
    """Agreement by the largest relative difference of two numbers, or of two tuples of them."""

    def compare(ours: Any, theirs: Any) -> Agreement:
        import numpy as np

        one, other = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
        found = float(np.max(np.abs(one - other) / np.maximum(np.abs(one), 1e-300)))
        return Agreement(f"relative difference of {measure}", found, allowed, expected)

    return compare


def features(n: int) -> dict[str, Array]:
    """N real and N generated points (N, 2048) with a decaying spectrum, as Inception's features have."""
    import numpy as np

    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, DIMS + 1))
    return {name: rng.normal(size=(n, DIMS)) * spectrum + 0.3 for name in ("real", "generated")}


def as_network(size: int) -> Any:
    """A module that gives back the features that it is shown, for metrics that insist on extracting some."""
    from torch import Tensor, nn

    class Ready(nn.Module):
        num_features = size

        def forward(self, x: Tensor) -> Tensor:
            """What is given."""
            return x

    return Ready()


def frechet(n: int, folder: Path) -> Contest:
    """Fréchet distance from features to the number."""
    import torch

    from bench.metrics.frechet import frechet_distance

    pair = features(n)
    generated, real = (torch.from_numpy(pair[name]) for name in ("generated", "real"))
    peers = [Contender("torch-fidelity", lambda: _fidelity_fd(generated, real), "torch-fidelity", note="eigenvalues")]
    if installed("torchmetrics"):
        note = "eigenvalues; class FrechetInceptionDistance, shown ready features in one batch"
        peers.append(Contender("torchmetrics", lambda: _torchmetrics_fd(generated, real), "torchmetrics", note=note))
    if n > DIMS:  # ten seconds each, whatever N is
        if installed("pytorch_fid"):
            peers.append(
                Contender("pytorch-fid", lambda: _pytorch_fid_fd(pair), "pytorch-fid", note="a root by scipy's sqrtm")
            )
        if installed("cleanfid"):
            from cleanfid.fid import fid_from_feats

            peers.append(
                Contender(
                    "clean-fid",
                    lambda: fid_from_feats(pair["generated"], pair["real"]),
                    "clean-fid",
                    note="a root by scipy's sqrtm",
                )
            )
    why = "" if n > DIMS else "N < d: rounding of the covariance's zero eigenvalues adds up under the root"
    return Contest(
        _name("Fréchet distance", n),
        GROUP,
        Contender("trilemma", lambda: frechet_distance(**pair), _OURS),
        tuple(peers),
        {peer.name: relative("the distance", 1e-6 if n > DIMS else 1e-3, why) for peer in peers},
        rounds=6,
    )


def _fidelity_fd(generated: Any, real: Any) -> float:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(x) for x in (generated, real)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def _torchmetrics_fd(generated: Any, real: Any) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=as_network(DIMS)).set_dtype(generated.dtype)
    metric.update(generated, real=False)
    metric.update(real, real=True)
    return float(metric.compute())


def _pytorch_fid_fd(pair: Mapping[str, Array]) -> float:
    import numpy as np
    from pytorch_fid.fid_score import calculate_frechet_distance

    moments = [(np.mean(x, axis=0), np.cov(x, rowvar=False)) for x in (pair["generated"], pair["real"])]
    return float(calculate_frechet_distance(*moments[0], *moments[1]))


def kernel(n: int, folder: Path) -> Contest:
    """KID: ours over all pairs with its error, theirs over random subsets: all, as some take long before the first."""
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    from bench.metrics.kernel import kernel_distance

    pair = features(n)
    pair["generated"] += 0.05  # of equal distributions KID is about 0, with which any small number would agree
    generated, real = (torch.from_numpy(pair[name]) for name in ("generated", "real"))

    def fidelity() -> float:
        found = kid_features_to_metric(generated, real, kid_subsets=SUBSETS, kid_subset_size=SUBSET_SIZE, verbose=False)
        return float(found["kernel_inception_distance_mean"])

    note = f"{SUBSETS} subsets of {SUBSET_SIZE}, its default"
    peers = [Contender("torch-fidelity", fidelity, "torch-fidelity", note=note)]
    if installed("torchmetrics"):
        peers.append(Contender("torchmetrics", lambda: _torchmetrics_kid(generated, real), "torchmetrics", note=note))
    if installed("cleanfid"):
        peers.append(Contender("clean-fid", lambda: _clean_kid(pair), "clean-fid", note=note))
    subsets = n > SUBSET_SIZE
    why = f"random subsets of {SUBSET_SIZE} against all pairs of {n}" if subsets else ""
    return Contest(
        _name("KID", n),
        GROUP,
        Contender(
            "trilemma",
            lambda: kernel_distance(real=pair["real"], generated=pair["generated"]).value,
            _OURS,
            note="all pairs, and a jackknife's error",
        ),
        tuple(peers),
        {peer.name: relative("KID", 1e-2 if subsets else 1e-9, why) for peer in peers},
        rounds=6,
    )


def _torchmetrics_kid(generated: Any, real: Any) -> float:
    from torchmetrics.image.kid import KernelInceptionDistance

    metric = KernelInceptionDistance(feature=as_network(DIMS), subsets=SUBSETS, subset_size=SUBSET_SIZE)
    metric.update(generated, real=False)
    metric.update(real, real=True)
    return float(metric.compute()[0])


def _clean_kid(pair: Mapping[str, Array]) -> float:
    from cleanfid.fid import kernel_distance

    return float(kernel_distance(pair["real"], pair["generated"], num_subsets=SUBSETS, max_subset_size=SUBSET_SIZE))


def score(n: int, folder: Path) -> Contest:
    """IS of logits, in one split, where no order of the images matters."""
    import numpy as np
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    from bench.metrics.inception_score import class_probabilities, inception_score

    logits = 3 * np.random.default_rng(1).normal(size=(n, CLASSES))
    shown = torch.from_numpy(logits)
    peers = [
        Contender(
            "torch-fidelity",
            lambda: isc_features_to_metric(shown, splits=1, shuffle=False)["inception_score_mean"],
            "torch-fidelity",
        )
    ]
    if installed("torchmetrics"):
        peers.append(Contender("torchmetrics", lambda: _torchmetrics_is(shown), "torchmetrics"))
    return Contest(
        f"Inception score, N = {n}, {CLASSES} classes",
        GROUP,
        Contender("trilemma", lambda: inception_score(probabilities=class_probabilities(logits)), _OURS),
        tuple(peers),
        {peer.name: relative("the score", 1e-9) for peer in peers},
    )


def _torchmetrics_is(logits: Any) -> float:
    from torchmetrics.image.inception import InceptionScore

    metric = InceptionScore(feature=as_network(CLASSES), splits=1)
    metric.update(logits)
    return float(metric.compute()[0])


def precision(n: int, folder: Path) -> Contest:
    """Precision and recall (Kynkäänniemi et al. 2019), k = 3."""
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    from bench.metrics.manifold import precision_recall

    pair = features(n)
    generated, real = (torch.from_numpy(pair[name]) for name in ("generated", "real"))

    def fidelity() -> tuple[float, float]:
        found = prc_features_to_metric(generated, real, verbose=False)
        return found["precision"], found["recall"]

    return Contest(
        _name("Precision and recall", n),
        GROUP,
        Contender("trilemma", lambda: precision_recall(real=pair["real"], generated=pair["generated"]), _OURS),
        (Contender("torch-fidelity", fidelity, "torch-fidelity"),),
        {"torch-fidelity": relative("either", 1e-6)},
        rounds=6 if n > 2000 else 9,
    )


def four(n: int, folder: Path) -> Contest:
    """Precision, recall, density, coverage (Naeem et al. 2020)."""
    import numpy as np
    from prdc import compute_prdc

    from bench.metrics.manifold import all_four

    pair = features(n)

    def ours() -> tuple[float, ...]:
        first, second = all_four(real=pair["real"], generated=pair["generated"])
        return (*first, *second)

    def theirs() -> tuple[float, ...]:
        found = compute_prdc(pair["real"], pair["generated"], nearest_k=5)
        return tuple(float(found[name]) for name in ("precision", "recall", "density", "coverage"))

    def agree(one: tuple[float, ...], other: tuple[float, ...]) -> Agreement:
        found = float(np.abs(np.subtract(one[2:], other[2:])).max())  # Python's max would pass over a NaN
        return Agreement("difference of density or coverage", found, 1e-9)

    note = "one k for all four: here 5, where ours takes 3 for precision and recall, as their papers do"
    return Contest(
        _name("Precision, recall, density, coverage", n),
        GROUP,
        Contender("trilemma", ours, _OURS),
        (Contender("prdc", theirs, "prdc", note=note),),
        {"prdc": agree},
        rounds=6 if n > 2000 else 9,
    )


def _name(what: str, n: int) -> str:
    return f"{what}, N = {n}, d = {DIMS}"


def _entries(what: str, make: Callable[[int, Path], Contest], needs: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    return tuple(Entry(_name(what, n), GROUP, partial(make, n), needs) for n in (1000, 5000))


ENTRIES: tuple[Entry, ...] = (
    *_entries("Fréchet distance", frechet),
    *_entries("KID", kernel),
    Entry(f"Inception score, N = 5000, {CLASSES} classes", GROUP, partial(score, 5000)),
    *_entries("Precision and recall", precision),
    *_entries("Precision, recall, density, coverage", four, ("prdc",)),
)

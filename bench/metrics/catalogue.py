"""Every metric there is, in the order of tables."""

from __future__ import annotations

from bench import keys
from bench.metrics.attributes import AttributeAccuracy
from bench.metrics.base import Metric
from bench.metrics.birthday import Birthday
from bench.metrics.codes import ClusterAccuracy, InformationBound
from bench.metrics.context import ContextFraction
from bench.metrics.displacement import Displacement
from bench.metrics.exact import ExactFrechet
from bench.metrics.frechet import Frechet
from bench.metrics.frechet_infinity import FrechetInfinity
from bench.metrics.inception_score import InceptionScore
from bench.metrics.kernel import Kernel
from bench.metrics.latent_mmd import LatentMmd
from bench.metrics.likelihood import BitsPerDim
from bench.metrics.manifold import COVERAGE, DENSITY, PRECISION, RECALL
from bench.metrics.memorisation import Memorisation
from bench.metrics.mmd_rbf import GaussianKernel
from bench.metrics.modes import ModeDivergence, Modes
from bench.metrics.over_training import OverTraining
from bench.metrics.parts import AppearanceDistance, MaskOverlap
from bench.metrics.path_length import PathLength
from bench.metrics.r_precision import RPrecision
from bench.metrics.reconstruction import DomainReconstruction
from bench.metrics.reconstruction_mse import Reconstruction
from bench.metrics.resolutions import FrechetByResolution
from bench.metrics.sharpness import Sharpness
from bench.metrics.translation import CycleDistance, PairedError
from bench.metrics.wasserstein import Wasserstein

_ALL = (
    BitsPerDim(),
    ContextFraction(),
    Reconstruction(),
    LatentMmd(),
    Displacement(),
    Frechet(),
    FrechetInfinity(),
    InceptionScore(),
    Kernel(),
    GaussianKernel(),
    PRECISION,
    RECALL,
    DENSITY,
    COVERAGE,
    Modes(),
    ModeDivergence(),
    Birthday(),
    AttributeAccuracy(),
    MaskOverlap(),
    AppearanceDistance(),
    PairedError(),
    CycleDistance(),
    DomainReconstruction(),
    RPrecision(),
    InformationBound(),
    ClusterAccuracy(),
    FrechetByResolution(),
    Memorisation(),
    Sharpness(),
    ExactFrechet(),
    PathLength(),
    Wasserstein(),
    OverTraining(),
)
METRICS: tuple[Metric, ...] = _ALL


def names() -> tuple[str, ...]:
    """The name of each metric family."""
    return tuple(metric.name for metric in _ALL)


def descriptions() -> dict[str, str]:
    """One line for each metric family."""
    return {metric.name: metric.description for metric in _ALL}


def code_key(metric: Metric) -> str:
    """What a metric's numbers depend on beside its inputs: its own code, and all that it imports here."""
    return keys.digest(metric.name, metric.version, keys.source_key([type(metric).__module__], ("bench",)))

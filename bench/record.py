"""Cells, measurements and records: the torch-free data that runs write and reports read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from baselines.types import Budget, Draw, Kind

SCHEMA = 1
"""Version of the record line. A reader refuses a newer one and migrates an older one."""

Status = Literal["ok", "failed", "timeout"]
Scope = Literal["train", "draw"]
Better = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Cell:
    """One square of the matrix. `draw` None is the training itself, which several draws share."""

    model: str
    dataset: str
    budget: Budget
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)  # complete, defaults filled in
    draw: Draw | None = None
    samples: int | None = None  # N where the draw has one of its own; None: the run's

    def label(self, variant: str = "") -> str:
        """`ddpm-digits seed 0, ddim S=20 eta=0`, for progress and messages.

        variant: what sets the cell's config apart from others of its model, told in brackets after the name.
        """
        draw = "" if self.draw is None else f", {self.draw.label()}"
        own = "" if self.samples is None else f" N={self.samples}"
        told = f" ({variant})" if variant else ""
        return f"{self.model}-{self.dataset}{told} seed {self.seed}{draw}{own}"


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to judge it."""

    metric: str  # such as bits_per_dim[vlb], fd[digits-cnn], latency_s[p50]
    value: float
    unit: str  # bits/dim, s, images/s, B, "" for a pure number
    better: Better
    n: int  # images (or repetitions) behind it
    scope: Scope
    low: float | None = None  # 95 % interval, where one can be given
    high: float | None = None
    kind: Kind | None = None  # for likelihoods
    protocol: Mapping[str, Any] = field(default_factory=dict)  # equal protocols are comparable
    note: str = ""


@dataclass(frozen=True)
class Artifact:
    """A file beside the records; `path` is relative to the results folder and stays inside it."""

    role: (
        str  # samples | real | curve | timings | strip | chart | likelihood_curves | maps | latent_map | over_training
    )
    path: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """What became of one cell; one line of JSON."""

    key: str
    train_key: str
    status: Status
    cell: Cell
    measured: tuple[Measurement, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)  # metric -> reason
    artifacts: tuple[Artifact, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metric_keys: Mapping[str, str] = field(default_factory=dict)  # metric family -> its code and inputs
    error: str = ""
    schema: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        """Plain values, in the order in which a person reads them."""
        plain = asdict(self)
        first = ("schema", "key", "train_key", "status", "error", "cell")
        return {name: plain[name] for name in (*first, *(k for k in plain if k not in first))}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Record:
        """The inverse of `as_json`.

        Raises:
            KeyError, TypeError, ValueError: if the line is not a record of this schema.
        """
        cell = dict(plain["cell"])
        budget = Budget(**cell.pop("budget"))
        draw = cell.pop("draw")
        return cls(
            **{
                **plain,
                "cell": Cell(**cell, budget=budget, draw=None if draw is None else Draw(**draw)),
                "measured": tuple(Measurement(**m) for m in plain["measured"]),
                "artifacts": tuple(Artifact(**a) for a in plain["artifacts"]),
            }
        )

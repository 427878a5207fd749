"""What a report is made of, free of markup: sections, calibrations, failures, and all of it together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.report.axes import Axes
from bench.report.blocks import Block
from bench.report.grids import Grid
from bench.report.rows import Row, Sheet
from bench.report.strips import StripSet
from bench.report.style import Picture
from bench.report.tables import Table


@dataclass(frozen=True)
class Failure:
    """A cell that failed or ran out of time."""

    label: str
    status: str
    error: str
    rerun: str  # a command line


@dataclass(frozen=True)
class Steps:
    """What steps buy: draws of one checkpoint over the number of network calls."""

    findings: tuple[str, ...]
    exact_picture: Picture | None  # of a model that knows its samples' moments, beside a trained one
    exact: Table | None
    sampled: tuple[Picture, ...]
    table: Table | None
    published: Table

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Its figures in their order."""
        return self.sampled if self.exact_picture is None else (self.exact_picture, *self.sampled)


@dataclass(frozen=True)
class Section:
    """What is said of one data set."""

    sheet: Sheet
    slug: str  # for file names and anchors
    findings: tuple[str, ...]
    thinned: str  # what figures leave out for want of room; mostly empty
    formulas: tuple[str, ...]
    missing: tuple[str, ...]  # axes that cannot be drawn, and why
    placed: tuple[tuple[Row, Axes], ...]
    trilemma: Picture | None  # map and triangles in one, for the README
    map: Picture | None  # the map alone, for the page, which draws the triangles itself
    pictures: tuple[Picture, ...]
    steps: Steps | None
    strips: tuple[StripSet, ...]
    grids: tuple[Grid, ...]
    structures: Table | None  # the families side by side
    blocks: tuple[Block, ...]
    main: Table
    cost: Table
    likelihood: Table
    anchors: Mapping[str, str]  # model -> its block's
    published: Table | None  # likelihoods of the same data that papers give
    other: Table | None


@dataclass(frozen=True)
class Calibration:
    """What is said of the metrics themselves on one data set."""

    dataset: str
    slug: str
    verdicts: tuple[str, ...]
    pictures: tuple[Picture, ...]
    table: Table


@dataclass(frozen=True)
class Changes:
    """What changed since another run, made by who can read both."""

    title: str
    findings: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BesideGroup:
    """One kind of work that other libraries did too."""

    title: str
    picture: Picture | None
    table: Table


@dataclass(frozen=True)
class Beside:
    """What other libraries did beside this one."""

    title: str
    intro: str
    findings: tuple[str, ...]
    groups: tuple[BesideGroup, ...]


@dataclass(frozen=True)
class Content:
    """The whole report."""

    title: str
    matrix: str
    headline: tuple[str, ...]  # device and protocol, for the first screen
    sheets: tuple[Sheet, ...]  # of all data sets, also those that have no section
    sections: tuple[Section, ...]
    calibrations: tuple[Calibration, ...]
    coverage: Table | None  # of the intervals; shown beside a calibration
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]  # unreadable lines, stale records, damaged artifacts
    tables: tuple[Table, ...]  # skipped, models, protocol, provenance
    published: tuple[Table, ...]
    changes: Changes | None = None  # against another run, where one is named
    beside: Beside | None = None  # other libraries, where some were raced

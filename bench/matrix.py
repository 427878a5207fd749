"""Matrices: a strict TOML file says which models, data sets, seeds and draws; it becomes a list of cells."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from baselines.config import nearest
from baselines.errors import UserError
from baselines.types import Budget, Draw, Scalar

ENDPOINTS = ("real", "histogram")
"""The floor and the ceiling of every score; each matrix measures them, whatever it names."""


SAMPLES = 5000
"""Default N: this many, or as many as there are real images outside the test split if they are fewer."""


_Option = str | int | float | bool
_Item = TypeVar("_Item")
_Some = Annotated[list[_Item], Field(min_length=1)]  # an empty list would ask for nothing, without a word


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Measure(_Strict):
    """What is measured, and how long."""

    samples: int | None = Field(default=None, ge=1)  # N of every cell, for the bias of FD hangs on it; None: SAMPLES
    batch: int = Field(default=500, ge=1)  # the large batch of sampling
    threads: int = Field(default=1, ge=1)  # while sampling is timed; training uses one a process
    timed_seeds: int | None = Field(default=None, ge=1)  # speed with the first so many seeds alone; None: with all
    latency_s: float = Field(default=1.0, gt=0)  # time given to the batch-1 latency of a draw
    likelihood_images: int | None = Field(default=None, ge=1)  # so many of the test split's; None: all
    likelihoods: list[str] = []  # beside those taken unasked: "pf_ode" of diffusion models
    extractor: str | None = None  # None: the data set's own
    metrics: list[str] | None = None  # only these families (trilemma list metrics); None: all


class DrawSpec(_Strict):
    """Samplers of one checkpoint: the product of samples, options, eta and steps."""

    sampler: str = "native"
    steps: _Some[int] | None = None
    eta: _Some[float] = [0.0]
    spacing: str = "uniform"
    variance: str | None = None
    clip: bool = True
    options: dict[str, _Option | _Some[_Option]] = {}  # a list: each of its values
    samples: _Some[Annotated[int, Field(ge=1)]] | None = None  # N of these draws, instead of the matrix's
    seeds: _Some[int] | None = None  # of the matrix's seeds; None: all

    def draws(self) -> Iterator[tuple[Draw, int | None]]:
        """Every draw that this line names, with its own N if it has one."""
        numbers: list[int | None] = [None] if self.steps is None else [*self.steps]
        sizes: list[int | None] = [None] if self.samples is None else [*self.samples]
        for n, options, eta, steps in itertools.product(sizes, list(self._options()), self.eta, numbers):
            yield Draw(self.sampler, steps, eta, self.spacing, self.variance, self.clip, options), n

    def _options(self) -> Iterator[dict[str, Scalar]]:
        values = [value if isinstance(value, list) else [value] for value in self.options.values()]
        for chosen in itertools.product(*values):
            yield dict(zip(self.options, chosen, strict=True))


class ModelSpec(_Strict):
    """One model of the matrix."""

    model: str
    images: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    config: dict[str, Any] = {}
    batch: int | None = Field(default=None, ge=1)  # the large batch of sampling; None: the matrix's
    draws: list[DrawSpec] = [DrawSpec()]
    datasets: _Some[str] | None = None  # None: all of the matrix
    seeds: _Some[int] | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> ModelSpec:
        if self.images is not None and self.seconds is not None:
            raise ValueError("expected images or seconds, got both")
        return self


class Exclude(_Strict):
    """Cells that are not run: those that every key given here names."""

    model: str | None = None
    dataset: str | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _something(self) -> Exclude:
        if self.model is None and self.dataset is None and self.seed is None:
            raise ValueError("expected model, dataset or seed, got none, which would exclude all")
        if self.model in ENDPOINTS and self.dataset is None:
            raise ValueError(f"expected a model other than {' and '.join(ENDPOINTS)}, beside which all scores are read")
        return self

    def hits(self, wanted: Wanted) -> bool:
        """Whether it names this cell."""
        pairs = ((self.model, wanted.model), (self.dataset, wanted.dataset), (self.seed, wanted.seed))
        return all(ours is None or ours == theirs for ours, theirs in pairs)


class Matrix(_Strict):
    """A whole matrix file."""

    title: str = ""
    include: list[str] = []  # matrices, shipped or by path from here, whose models stand before this file's own
    exclude: list[Exclude] = []
    datasets: _Some[str] = ["digits"]
    seeds: _Some[int] = [0]
    images: int = Field(default=400_000, ge=1)  # budget of a model that names none
    time_limit_s: float = Field(default=3600.0, gt=0)  # of one cell
    memory_limit_mb: int | None = Field(default=None, ge=1)  # MiB of main memory that a cell may take; None: any
    measure: Measure = Measure()
    models: list[ModelSpec] = []


@dataclass(frozen=True)
class Wanted:
    """One training with its draws, before the model is imported."""

    model: str
    dataset: str
    seed: int
    budget: Budget
    config: Mapping[str, Any]
    draws: tuple[Draw, ...]
    samples: tuple[int | None, ...]  # N of each draw; None: the run's
    batch: int | None = None  # the large batch of sampling; None: the run's


def shipped() -> tuple[str, ...]:
    """Names of the matrices in the package."""
    return tuple(sorted(Path(str(path)).stem for path in _folder().iterdir() if path.name.endswith(".toml")))


def _folder() -> Any:
    return files("bench").joinpath("matrices")


def load(name: str) -> tuple[str, Matrix]:
    """Read a matrix by shipped name or by path of a TOML file; returns its name and content, what it includes with it.

    Raises:
        UserError: if there is none, or a key or value is wrong, naming it, or files include each other in a circle.
    """
    return _load(name, Path(), ())


def _load(name: str, beside: Path, including: tuple[str, ...]) -> tuple[str, Matrix]:
    if name in shipped():
        place, stem, text = name, name, _folder().joinpath(f"{name}.toml").read_text(encoding="utf-8")
        beside = Path()
    else:
        path = beside / name
        if path.suffix != ".toml":
            raise UserError(f"unknown matrix {name!r}{nearest(name, shipped())} (or give the path of a .toml file)")
        try:
            place, stem, text = str(path.resolve()), path.stem, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"matrix {path}: cannot read it: {error}") from None
        beside = path.parent
    if place in including:
        raise UserError(f"matrix {name}: include: it includes itself, by {' -> '.join((*including, place))}")
    own = _parse(text, name)
    models: list[ModelSpec] = []
    rules: list[Exclude] = []
    for other in dict.fromkeys(own.include):
        theirs = _load(other, beside, (*including, place))[1]
        models += _included(theirs)
        rules += _carried(theirs)
    whole = own.model_copy(update={"models": [*models, *own.models], "exclude": [*own.exclude, *rules]})
    _check_excludes(whole, name)
    return stem, whole


def _included(matrix: Matrix) -> Iterator[ModelSpec]:
    """The models of another matrix with its budget and its batch; data sets and seeds are the including file's."""
    gone = {rule.model for rule in matrix.exclude if rule.dataset is None and rule.seed is None}
    batch = matrix.measure.batch if "batch" in matrix.measure.model_fields_set else None
    for spec in matrix.models:
        if spec.model not in gone:
            budget = {} if spec.images or spec.seconds else {"images": matrix.images}
            yield spec.model_copy(update={**budget, "batch": spec.batch or batch})


def _carried(matrix: Matrix) -> Iterator[Exclude]:
    """What another matrix excludes of its models on some data or with some seeds goes along with them."""
    kept = dict.fromkeys(spec.model for spec in _included(matrix))
    for rule in matrix.exclude:
        if rule.dataset is not None or rule.seed is not None:
            for model in kept if rule.model is None else [rule.model]:
                if model in kept:
                    yield rule.model_copy(update={"model": model})


def _check_excludes(matrix: Matrix, name: str) -> None:
    known = [*(spec.model for spec in matrix.models), *ENDPOINTS]
    for i, rule in enumerate(matrix.exclude):
        if rule.model is not None and rule.model not in known:
            raise UserError(
                f"matrix {name}: exclude.{i}.model: no model {rule.model!r} here{nearest(rule.model, known)}"
            )


def _parse(text: str, name: str) -> Matrix:
    try:
        return Matrix.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"matrix {name}: not TOML: {error}") from None
    except ValidationError as error:
        raise UserError(f"matrix {name}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "file"
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key (value {first['input']!r}){_keys_like(first['loc'])}"
    return f"{where}: {first['msg']}, got {first['input']!r}"


def _keys_like(place: tuple[int | str, ...]) -> str:
    """The key that may have been meant where there is none of this name, or those that there are."""
    table: type[BaseModel] | None = Matrix
    for part in place[:-1]:
        if isinstance(part, str) and table is not None:
            table = _table_in(table.model_fields[part].annotation) if part in table.model_fields else None
    return "" if table is None else nearest(str(place[-1]), table.model_fields)


def _table_in(hint: Any) -> type[BaseModel] | None:
    """The kind of table in `list[Kind]`, `Kind | None` and the like."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for arm in get_args(hint) if (found := _table_in(arm)) is not None), None)


def expand(
    matrix: Matrix,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    seeds: Sequence[int] = (),
    budget: Budget | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Wanted]:
    """The trainings that a matrix asks for, in its order, the endpoints always among them.

    Args:
        matrix: what to expand.
        models: only these; one that the matrix does not name gets its default budget and native draw.
        datasets: instead of the matrix's.
        seeds: instead of the matrix's.
        budget: instead of every model's own.
        overrides: model -> config keys, on top of the matrix's.

    Raises:
        UserError: if an override names a model that is not among those selected.
    """
    specs = [spec for spec in matrix.models if not models or spec.model in models]
    named = {spec.model for spec in matrix.models}
    specs += [ModelSpec(model=name) for name in dict.fromkeys(models) if name not in named]
    chosen = {spec.model for spec in specs}
    specs += [ModelSpec(model=name) for name in ENDPOINTS if name not in chosen]
    for name in overrides or {}:
        if name not in chosen:
            raise UserError(f"--set {name}...: {name!r} is not among the models of this run{nearest(name, chosen)}")
    wanted: list[Wanted] = []
    for spec in specs:
        config = {**spec.config, **(overrides or {}).get(spec.model, {})}
        own = budget or Budget(spec.images or (None if spec.seconds else matrix.images), spec.seconds)
        for dataset in dict.fromkeys(datasets or spec.datasets or matrix.datasets):
            if datasets and spec.datasets and dataset not in spec.datasets and not models:
                continue
            wanted += _seeds_of(matrix, spec, dataset, own, config, seeds)
    # a model that is asked for by name is not left out for its name alone
    rules = [r for r in matrix.exclude if not (r.model in models and r.dataset is None and r.seed is None)]
    return [item for item in wanted if not any(rule.hits(item) for rule in rules)]


def _seeds_of(
    matrix: Matrix, spec: ModelSpec, dataset: str, budget: Budget, config: Mapping[str, Any], seeds: Sequence[int]
) -> Iterator[Wanted]:
    every = list(dict.fromkeys(seeds or matrix.seeds))
    own = [seed for seed in every if spec.seeds is None or seeds or seed in spec.seeds]
    for seed in own or every[:1]:  # as with draws: one limited to other seeds has the first instead, and is not lost
        pairs = [pair for line in spec.draws if _has(line, seed, every) for pair in line.draws()]
        draws, samples = tuple(draw for draw, _ in pairs), tuple(n for _, n in pairs)
        yield Wanted(spec.model, dataset, seed, budget, config, draws, samples, spec.batch)


def _has(line: DrawSpec, seed: int, every: Sequence[int]) -> bool:
    """Whether a draw is made with this seed; one limited to other seeds is made with the first instead."""
    if line.seeds is None or seed in line.seeds:
        return True
    return not set(line.seeds) & set(every) and seed == every[0]

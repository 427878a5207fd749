"""Matrices: strict files, and the cells they become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import matrix
from bench.job import Setup
from bench.plan import plan


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


TWO = """
title = "two"
datasets = ["digits"]
seeds = [0, 1]
images = 1000
[[models]]
model = "ddpm"
images = 500
config = { timesteps = 10 }
draws = [
    { sampler = "ddim", steps = [5, 10], eta = [0.0, 1.0] },
    { sampler = "ddpm", steps = [10], seeds = [0] },
]
[[models]]
model = "vae"
"""


def expand(folder: Path, **options: object) -> list[matrix.Wanted]:
    return matrix.expand(matrix.load(write(folder, TWO))[1], **options)  # type: ignore[arg-type]


def test_a_matrix_becomes_models_times_seeds_with_the_endpoints(tmp_path: Path) -> None:
    wanted = expand(tmp_path)
    assert [(w.model, w.seed) for w in wanted] == [
        (model, seed) for model in ("ddpm", "vae", "real", "histogram") for seed in (0, 1)
    ]
    ddpm = [w for w in wanted if w.model == "ddpm"]
    assert [len(w.draws) for w in ddpm] == [5, 4], "the ancestral draw is for seed 0 alone"
    assert Draw("ddim", 10, 1.0) in ddpm[1].draws
    assert ddpm[0].budget == Budget(images=500)
    assert ddpm[0].config == {"timesteps": 10}
    assert wanted[2].budget == Budget(images=1000)
    assert wanted[2].draws == (Draw(),)


def test_selection_keeps_the_matrix_settings_and_adds_what_it_does_not_name(tmp_path: Path) -> None:
    wanted = expand(tmp_path, models=["ddpm", "my.module"], seeds=[3], budget=Budget(seconds=5))
    assert [(w.model, w.seed) for w in wanted] == [(m, 3) for m in ("ddpm", "my.module", "real", "histogram")]
    assert {w.budget for w in wanted} == {Budget(seconds=5)}
    assert len(wanted[0].draws) == 5, "a draw limited to seeds that are not run is made with the first one"


def test_overrides_are_laid_over_the_config(tmp_path: Path) -> None:
    wanted = expand(tmp_path, overrides={"ddpm": {"width": 4, "timesteps": 20}})
    assert wanted[0].config == {"timesteps": 20, "width": 4}
    with pytest.raises(UserError, match=r"'dddpm' is not among.*did you mean 'ddpm'"):
        expand(tmp_path, overrides={"dddpm": {"width": 4}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel = 'x'", r"titel: unknown key"),
        ("[[exclude]]", r"exclude\.0: .*expected model, dataset or seed, got none"),
        ("[[exclude]]\nmodel = 'real'", r"exclude\.0: .*other than real and histogram"),
        ("[[exclude]]\nmodel = 'vaee'\n[[models]]\nmodel = 'vae'", r"exclude\.0\.model: no model 'vaee' here; did you"),
        ("include = ['quik']", r"unknown matrix 'quik'; did you mean 'quick'"),
        ("include = ['none.toml']", r"none\.toml: cannot read it"),
        ("include = ['mine.toml']", r"it includes itself, by .*mine\.toml -> .*mine\.toml"),
        ("seeds = ['a']", r"seeds\.0: .*integer"),
        ("seeds = []", "seeds"),
        ("[[models]]\nmodel = 'vae'\nimages = -1", r"models\.0\.images"),
        ("[[models]]\nmodel = 'vae'\nimages = 1\nseconds = 1.0", "images or seconds, got both"),
        ("[[models]]\nimages = 1", r"models\.0\.model: Field required"),
        ("[[models]]\nmodel = 'x'\ndraws = [{ step = [1] }]", r"models\.0\.draws\.0\.step: unknown key"),
        ("[measure]\nthreads = '2'", r"measure\.threads"),
        ("dataset = ['digits']", r"dataset: unknown key .*; did you mean 'datasets'\?"),
        ("[measure]\nsample = 5", r"measure\.sample: unknown key \(value 5\); did you mean 'samples'\?"),
        (
            "[[models]]\nmodel = 'x'\nepochs = 5",
            r"models\.0\.epochs: unknown key \(value 5\); known: batch, config, .*seeds",
        ),
        ("[[models]]\nmodel = 'x'\ndraws = [{ samplr = 'ddim' }]", r"draws\.0\.samplr: .*did you mean 'sampler'"),
        *(
            (f"[[models]]\nmodel = 'x'\ndraws = [{{ {line} }}]", rf"models\.0\.draws\.0\.{key}{told}")
            for key, line, told in (
                ("steps", "steps = []", ".*at least 1 item"),
                ("eta", "eta = []", ".*at least 1 item"),
                ("samples", "samples = []", ".*at least 1 item"),
                ("seeds", "seeds = []", ".*at least 1 item"),
                ("options", "options = { rho = [] }", r"\.rho.*got \[\]"),
            )
        ),
        ("[[models]]\nmodel = 'x'\nseeds = []", r"models\.0\.seeds.*at least 1 item"),
        ("[[models]]\nmodel = 'x'\ndatasets = []", r"models\.0\.datasets.*at least 1 item"),
        ("[[models]]\nmodel = 'x'\ndraws = [{ steps = [10.0] }]", r"models\.0\.draws\.0\.steps\.0.*integer"),
        ("[[models]]\nmodel = 'x'\ndraws = [{ steps = [true] }]", r"models\.0\.draws\.0\.steps\.0.*integer"),
        ("title = ", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        matrix.load(write(tmp_path, text))


def test_a_draws_numbers_are_numbers() -> None:
    for steps in (10.0, 2.5, True, "10"):
        with pytest.raises(UserError, match=r"draw\.steps: expected a whole number, or none at all, got"):
            Draw("ddim", steps)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"draw\.eta: expected a number, got True"):
        Draw("ddim", 10, True)
    assert Draw("ddim", 10, 1).label() == "ddim S=10 eta=1"


def test_an_unknown_matrix_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'quick'"):
        matrix.load("quik")
    with pytest.raises(UserError, match="cannot read"):
        matrix.load("no/such.toml")


@pytest.mark.parametrize("name", matrix.shipped())
def test_shipped_matrices_are_valid(name: str) -> None:
    _, content = matrix.load(name)
    assert content.title
    assert matrix.expand(content)


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_the_diffusion_study_trains_every_chain_alike_with_three_seeds(dataset: str) -> None:
    found = [w for w in matrix.expand(matrix.load("diffusion")[1], datasets=[dataset]) if w.model == "ddpm"]
    assert {w.seed for w in found} == {0, 1, 2}
    assert len({w.budget for w in found}) == 1
    rest = [{k: v for k, v in w.config.items() if k != "timesteps"} for w in found]
    assert all(config == rest[0] for config in rest), "T alone sets the trainings apart"
    short = {w.config["timesteps"] for w in found if "timesteps" in w.config}
    eta_0 = {d.steps for w in found for d in w.draws if d.sampler == "ddim" and d.eta == 0 and d.spacing == "uniform"}
    assert short
    assert short <= eta_0, "DDIM is drawn with as many steps as each short chain has"


def test_a_model_limited_to_seeds_that_the_matrix_has_not_is_run_with_the_first_and_not_lost(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('seeds = [0, 1, 2]\n[[models]]\nmodel = "vae"\nseeds = [1, 2]\n')
    text = 'include = ["other.toml"]\nseeds = [{}]\n'
    for seeds, expected in (("0, 1, 2", [1, 2]), ("2, 5", [2]), ("5, 6", [5])):
        wanted = matrix.expand(matrix.load(write(tmp_path, text.format(seeds)))[1])
        assert [w.seed for w in wanted if w.model == "vae"] == expected


def test_a_models_own_batch_stands_for_the_matrix_one(tmp_path: Path) -> None:
    text = TWO.replace("images = 500\n", "images = 500\nbatch = 70\n") + "[measure]\nbatch = 90\n"
    whole = matrix.expand(matrix.load(write(tmp_path, text))[1])
    setup = Setup(tmp_path, "cpu", batch=90)
    batches = {t.job.cell.model: {draw.setup.batch for draw in t.draws} for t in plan(whole, setup, whole)}
    assert batches == {"ddpm": {70}, "vae": {90}, "real": {90}, "histogram": {90}}


def test_which_seeds_are_timed_does_not_hang_on_what_is_selected(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "cpu", samples=200, batch=500, timed_seeds=1)
    whole = [item for item in expand(tmp_path) if item.model in ("ddpm", "vae")]
    planned = {(t.job.cell.model, t.job.cell.seed): t for t in plan(whole, setup, whole)}
    assert {name: next(draw.timed for draw in t.draws) for name, t in planned.items()} == {
        ("ddpm", 0): True,
        ("ddpm", 1): False,
        ("vae", 0): True,
        ("vae", 1): False,
    }
    for item in whole:
        (alone,) = plan([item], setup, whole)
        assert [d.key for d in alone.draws] == [d.key for d in planned[item.model, item.seed].draws]
    (own,) = plan([replace(whole[-1], seed=7)], setup, whole)
    assert own.draws[0].timed, "a seed that the matrix has not is the first of its own"


def test_an_included_matrix_lends_its_models_with_their_budgets_and_not_its_data_sets(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.toml").write_text(
        'datasets = ["digits"]\nseeds = [5]\nimages = 777\ninclude = ["third.toml"]\n[measure]\nbatch = 64\n'
        '[[models]]\nmodel = "vae"\n[[models]]\nmodel = "dcgan"\nseconds = 3.0\n[[models]]\nmodel = "ddpm"\n'
        '[[exclude]]\nmodel = "ddpm"\n[[exclude]]\nmodel = "vae"\nseed = 1\n'
    )
    (tmp_path / "sub" / "third.toml").write_text('[[models]]\nmodel = "made"\nimages = 9\n')  # beside who includes it
    text = 'include = ["sub/other.toml"]\ndatasets = ["markov-mesh"]\nseeds = [0, 1]\n[[models]]\nmodel = "gmm"\n'
    wanted = matrix.expand(matrix.load(write(tmp_path, text))[1], seeds=[0])
    assert [(w.model, w.dataset, w.budget, w.batch) for w in wanted[:4]] == [
        ("made", "markov-mesh", Budget(images=9), 64),
        ("vae", "markov-mesh", Budget(images=777), 64),
        ("dcgan", "markov-mesh", Budget(seconds=3.0), 64),
        ("gmm", "markov-mesh", Budget(images=400_000), None),
    ]
    every = {(w.model, w.seed) for w in matrix.expand(matrix.load(str(tmp_path / "mine.toml"))[1])}
    assert {seed for model, seed in every if model == "vae"} == {0}, "what it excludes goes along"
    assert {seed for model, seed in every if model == "dcgan"} == {0, 1}
    assert "ddpm" not in {model for model, _ in every}


def test_a_shipped_matrix_can_be_included_and_thinned(tmp_path: Path) -> None:
    text = (
        'include = ["quick"]\ndatasets = ["digits", "markov-mesh"]\nseeds = [0, 1]\n'
        '[[exclude]]\nmodel = "ddpm"\n'
        '[[exclude]]\nmodel = "dcgan"\ndataset = "markov-mesh"\n'
        '[[exclude]]\nmodel = "vae"\nseed = 1\n'
    )
    content = matrix.load(write(tmp_path, text))[1]
    cells = {(w.model, w.dataset, w.seed) for w in matrix.expand(content)}
    both = [(dataset, seed) for dataset in ("digits", "markov-mesh") for seed in (0, 1)]
    of = {name: {(d, s) for m, d, s in cells if m == name} for name in ("ddpm", "dcgan", "vae", "pixelcnn")}
    assert of == {
        "ddpm": set(),
        "dcgan": {("digits", 0), ("digits", 1)},
        "vae": {("digits", 0), ("markov-mesh", 0)},
        "pixelcnn": set(both),
    }
    asked = matrix.expand(content, models=["ddpm", "dcgan"])
    assert {(w.dataset, w.seed) for w in asked if w.model == "ddpm"} == set(both), "asked for by its name"
    assert {w.dataset for w in asked if w.model == "dcgan"} == {"digits"}

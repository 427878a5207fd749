"""Sentences that compare one way to draw with another at every number of steps where the seeds tell them apart."""

from __future__ import annotations

from collections.abc import Mapping

from bench.report.names import SIGMA_HAT
from bench.report.numbers import factor_text, number
from bench.report.published import published_fid
from bench.report.ratios import Ratio, ratio
from bench.report.rows import Row, Sheet
from bench.report.steps import Study

_FAR = 2.0  # an FD of so many times the real images' own is far from the floor


def by_steps(study: Study, what: str) -> str:
    """sigma-hat against eta 0 and eta 1, or a spacing against uniform timesteps, at every S that both sides have."""
    if what == SIGMA_HAT:
        pairs = [(f"against {kind}", study.of(SIGMA_HAT), study.of(kind)) for kind in ("eta 0", "eta 1")]
        title = "Sigma-hat by steps"
    else:
        kinds = [kind for kind, spacing in study.draws if spacing == what]
        pairs = [(kind, study.of(kind, what), study.of(kind)) for kind in kinds]
        title = f"{what.capitalize()} against uniform timesteps"
    told = [(name, ratios(rows, base, study.quality)) for name, rows, base in pairs]
    parts = [f"{name} {sides(found, study.seeds)}" for name, found in told if found]
    return f"{title}: {'. '.join(part[0].upper() + part[1:] for part in parts)}." if parts else ""


def ratios(rows: Mapping[int, Row], base: Mapping[int, Row], metric: str) -> dict[int, Ratio]:
    """By S what the rows have of the base's metric, where both were drawn."""
    return {s: r for s in sorted(rows.keys() & base.keys()) if (r := ratio(rows[s], base[s], metric)) is not None}


def sides(found: Mapping[int, Ratio], seeds: int, lower: str = "lower", higher: str = "higher") -> str:
    """`lower at S=100 (0.923× [0.898 – 0.950]); not separable at S=20, S=50`; the not separable with their ratios."""
    groups = (
        (lower, [s for s, r in found.items() if r.below]),
        (higher, [s for s, r in found.items() if r.above]),
        ("not separable", [s for s, r in found.items() if r.unclear]),
    )
    told = [
        f"{word} at {', '.join(f'S={s} ({found[s].text(seeds)})' for s in steps)}" for word, steps in groups if steps
    ]
    return "; ".join(told)


def trained(study: Study) -> str:
    """A model trained with T = S against the long chain's own S steps: by the same noise (eta 1), and by eta 0."""
    same, none = (ratios(study.trained, study.of(kind), study.quality) for kind in ("eta 1", "eta 0"))
    if not same and not none:
        return ""
    told = [f"against eta 1, the same noise, {sides(same, study.seeds)}"] if same else []
    told += [f"against eta 0, which has no noise, {sides(none, study.seeds)}"] if none else []
    text = (
        f"A DDPM trained with T=S and drawn with all its steps (ancestral, eta 1), against S of the {study.timesteps} "
        f"steps of a long chain, the same budget: FD {'. '.join([told[0], *(t[0].upper() + t[1:] for t in told[1:])])}."
    )
    return f"{text} {_follows(same, none)} {_rescaled(study)}"


def _follows(same: Mapping[int, Ratio], none: Mapping[int, Ratio]) -> str:
    """What the two comparisons say together: only the one by the same noise is about the training."""
    if not same:
        return "The noise differs as well as the training, so this does not tell what the training alone does."
    worse, better = [s for s, r in same.items() if r.above], [s for s, r in same.items() if r.below]
    noise = [s for s, r in none.items() if not r.unclear and s in same and same[s].unclear]
    turned = [s for s in worse if s in none and none[s].below] + [s for s in better if s in none and none[s].above]
    if not worse and not better:
        told = "So the seeds do not tell the two trainings apart"
    else:
        parts = [f"the worse one at {_steps(worse)}"] if worse else []
        parts += [f"the better one at {_steps(better)}"] if better else []
        told = f"So, by the same noise, the training with T=S is {' and '.join(parts)}"
    if noise:
        told += f"; what sets it apart from eta 0 at {_steps(noise)} is not shown to be more than the noise"
    if turned:
        told += f"; at {_steps(turned)} the noise turns the comparison with eta 0 round"
    return f"{told}."


def _rescaled(study: Study) -> str:
    if study.schedule == "cosine":
        return "The cosine schedule is the same function of t / T for every T."
    return (
        "Each step of a chain of T does the work of 1000 / T steps of the schedule, beta becoming "
        "1 - (1 - beta)^(1000 / T), so that all chains end in the same noise."
    )


def own_error(study: Study, sheet: Sheet) -> str:
    """Where eta 0 stops falling although it is far from the floor: from there on the network's own error rules."""
    rows = study.of("eta 0")
    floor = None if sheet.floor is None else sheet.floor.value(study.quality)
    steps = [s for s, row in rows.items() if len(row.seeds) == study.seeds]
    if floor is None or floor <= 0 or len(steps) < 2:
        return ""
    last = rows[steps[-1]].scores[study.quality].value
    if last < _FAR * floor:
        return ""
    found = next((s for s in steps if not _falls(study, s, [x for x in steps if x > s])), steps[-1])
    far = f"FD {number(last)} at S={steps[-1]}, {factor_text(last / floor)} the floor's {number(floor)}"
    if found == steps[-1]:
        return f"Eta 0 falls up to S={found}, the most compared, and is still far from the floor ({far})."
    published = ", ".join(f"{fid:.2f} at {s}" for s, fid in published_fid("DDIM eta 0").items())
    return (
        f"Eta 0 stops falling, as far as the seeds tell, at S={found}: no larger S has a separably lower FD, which is "
        f"far from the floor ({far}). Beyond it the network's own error rules, not the number of steps. Published, on "
        f"CIFAR-10, eta 0 has FID {published}."
    )


def _falls(study: Study, steps: int, more: list[int]) -> bool:
    rows = study.of("eta 0")
    found = [ratio(rows[s], rows[steps], study.quality) for s in more]
    return any(r is not None and r.below for r in found)


def against_exact(study: Study, exact: Study) -> str:
    """Where the order of eta 0 and eta 1 is another one than for a network without error."""
    learned = ratios(study.of("eta 1"), study.of("eta 0"), study.quality)
    true = ratios(exact.of("eta 1"), exact.of("eta 0"), exact.quality)
    both = [s for s in learned if s in true]
    turned = [s for s in both if (learned[s].below and true[s].above) or (learned[s].above and true[s].below)]
    if not both:
        return ""
    if not turned:
        return "Learned against exact: no S at which the trained network orders eta 0 and eta 1 beyond doubt otherwise."
    told = ", ".join(f"S={s} ({learned[s].text(study.seeds)} learned, {true[s].text()} exact)" for s in turned)
    return (
        f"Learned against exact: eta 1 over eta 0 is the other way round at {told}: there the sampler's own error, "
        "which the exact numbers show for Gaussian data, is outweighed by the network's or by what is not Gaussian in "
        "the data."
    )


def _steps(found: list[int]) -> str:
    return ", ".join(f"S={s}" for s in sorted(found))

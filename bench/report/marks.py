"""Marks that keep a table honest: rows measured under another protocol, deep models that no reference yields to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

from bench.report.rows import Row, Sheet, likelihoods

MIXED = "its seeds were measured under different protocols"


@dataclass
class Footnotes:
    """Notes by letter, in the order in which they were first needed."""

    texts: list[str] = field(default_factory=list)

    def letter(self, text: str) -> str:
        """The note's letter: a, b, ..., z, aa, ab, ..."""
        if text not in self.texts:
            self.texts.append(text)
        index, letters = self.texts.index(text), ""
        while index >= 0:
            letters = ascii_lowercase[index % 26] + letters
            index = index // 26 - 1
        return letters

    def listed(self) -> list[tuple[str, str]]:
        """(letter, text) pairs."""
        return [(self.letter(text), text) for text in self.texts]


def protocol_marks(rows: Iterable[Row], metrics: Iterable[str], notes: Footnotes) -> dict[tuple[int, str], str]:
    """Letters of the scores whose protocol is not the commonest one of their metric.

    Returns:
        (index of the row, metric) -> letter in `notes`, whose text names the fields that differ.
    """
    rows, marks = list(rows), {}
    for metric in metrics:
        scores = {i: row.scores[metric] for i, row in enumerate(rows) if metric in row.scores}
        usual = commonest_protocol(score.protocol for score in scores.values())
        for i, score in scores.items():
            if score.mixed:
                marks[i, metric] = notes.letter(MIXED)
            elif score.protocol != usual:
                marks[i, metric] = notes.letter(difference(score.protocol, usual))
    return marks


def odd_rows(rows: Sequence[Row], metrics: Iterable[str | None]) -> dict[int, tuple[str, ...]]:
    """By the id of a row, what was measured unlike of most of these, and how: `fd[x]: other protocol: n: 360, ...`."""
    notes, found = Footnotes(), dict[int, tuple[str, ...]]()
    for (i, metric), letter in protocol_marks(rows, [m for m in metrics if m is not None], notes).items():
        told = dict(notes.listed())[letter]
        found[id(rows[i])] = (*found.get(id(rows[i]), ()), f"{metric}: {told}")
    return found


def commonest_protocol(protocols: Iterable[str]) -> str:
    """The protocol that most scores were measured under; of equals the first."""
    found = Counter(protocols)
    return found.most_common(1)[0][0] if found else "{}"


def difference(protocol: str, usual: str) -> str:
    """`ema: true, most rows false` for each field in which two canonical protocols differ."""
    ours, theirs = flat(json.loads(protocol)), flat(json.loads(usual))
    differ = [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]
    return "other protocol: " + "; ".join(
        f"{n}: {ours.get(n, 'not told')}, most rows {theirs.get(n, 'not told')}" for n in differ
    )


def unbeaten_fd(row: Row, sheet: Sheet) -> list[str]:
    """Titles of the reference models whose FD a deep model's does not undercut."""
    value = row.value(sheet.quality)
    if row.model.is_reference or value is None:
        return []
    found = [(v, ref.title) for ref in sheet.references if (v := ref.value(sheet.quality)) is not None]
    return [title for v, title in sorted(found) if value >= v]


def unbeaten_likelihood(row: Row, sheet: Sheet) -> list[str]:
    """Titles of the reference models whose bits/dim a deep model's best number does not undercut.

    The kinds may differ: a bound above the reference does not show that the model is worse, only that it is
    not shown to be better.
    """
    own = likelihoods(row)
    if row.model.is_reference or not own:
        return []
    lowest = min(score.value for score in own if score.kind == own[0].kind)
    found = [(min(s.value for s in theirs), ref.title) for ref in sheet.references if (theirs := likelihoods(ref))]
    return [title for v, title in sorted(found) if lowest >= v]


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Nested mappings as `outer.inner: text` pairs."""
    if isinstance(value, dict):
        inner = [flat(v, f"{name}.{k}" if name else str(k)) for k, v in value.items()]
        return {k: v for part in inner for k, v in part.items()}
    return {name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)}

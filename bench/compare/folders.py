"""The results folders that are compared: their short names, and who measured what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.record import Record
from bench.report.marks import flat
from bench.report.source import Source, open_results
from bench.report.tables import Column, Datum, Line, Table


@dataclass(frozen=True)
class Folder:
    """A results folder under the name that tables give it."""

    name: str
    source: Source


def open_folders(paths: Sequence[Path]) -> list[Folder]:
    """Read results folders; those of one name are told apart by the folders around them.

    Raises:
        UserError: if one is missing, holds no records, or is of a newer schema.
    """
    return [Folder(name, open_results(path)) for name, path in zip(_names(paths), paths, strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while depth < max(map(len, parts), default=1) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    names = ["/".join(p[-depth:]) for p in parts]
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def device_of(record: Record) -> str:
    """The machine's part that computed: a processor's name, or a GPU's."""
    told = flat(dict(record.provenance))
    device = told.get("device", "")
    return (told.get("cpu") or "cpu") if device in ("", "cpu") else device


def commit_of(record: Record) -> str:
    """`0123456789ab`, with a `+` where files were changed since; `unknown` where the record does not tell."""
    commit = record.provenance.get("commit")
    if not isinstance(commit, str) or not commit:
        return "unknown"
    return commit[:12] + ("+" if record.provenance.get("dirty") else "")


def told_of(values: Iterable[str], most: int = 3) -> str:
    """The values, each once, and how many more there are."""
    found = list(dict.fromkeys(values))
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def folders_table(folders: Sequence[Folder]) -> Table:
    """A line a folder: what it holds and where that was measured; what differs from the first is marked."""
    heads = ("Folder", "run", "records", "failed", "seeds", "commit", "device", "threads", "torch", "measured")
    first: tuple[str, ...] | None = None
    lines = []
    for folder in folders:
        records = folder.source.records
        facts = _facts(records)
        first = first or facts
        days = sorted(time[:10] for r in records if (time := str(r.provenance.get("time", ""))))
        when = "unknown" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
        failed = sum(r.status != "ok" for r in records)
        seeds = ", ".join(map(str, sorted({r.cell.seed for r in records})))
        data = [Datum(folder.name, folder.name), Datum(folder.source.title), Datum(str(len(records)), len(records))]
        data += [Datum(str(failed), failed), Datum(seeds)]
        data += [Datum(text, text, mark="a" if text != own else "") for text, own in zip(facts, first, strict=True)]
        lines.append(Line((*data, Datum(when, when))))
    columns = tuple(Column(head, numeric=head in ("records", "failed")) for head in heads)
    marked = any(datum.mark for line in lines for datum in line.data)
    notes = (("a", "not as in the first folder"),) if marked else ()
    intro = "A + behind a commit: files were changed since, and the commit alone does not give the code."
    return Table("folders", "What is compared", intro, columns, tuple(lines), notes)


def _facts(records: Sequence[Record]) -> tuple[str, ...]:
    fields = [flat(dict(r.provenance)) for r in records]
    names = ("threads", "versions.torch")
    rest = (told_of(f[name] for f in fields if f.get(name) not in (None, "null")) or "unknown" for name in names)
    return (told_of(map(commit_of, records)), told_of(map(device_of, records)), *rest)

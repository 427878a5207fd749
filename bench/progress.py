"""Shows a run while it goes on: live bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.plain_text import printable

_LINE_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """`42s`, `3m05s`, `1h02m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Display:
    """Progress of a whole run: cells done, and for each running cell its phase, images/s and time left."""

    def __init__(self, console: Console, cells: int) -> None:
        self.console, self.cells = console, cells
        self.live = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.total = self.bars.add_task("all cells", total=max(cells, 1), state=f"0/{cells}")
        self.tasks: dict[str, TaskID] = {}
        self.phases: dict[str, tuple[str, float, int]] = {}  # label -> phase, when it began, what was done then
        self.done = 0
        self.started = time.monotonic()
        self.last_line: dict[str, float] = {}

    def __enter__(self) -> Display:
        if self.live:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bars.stop()

    def progress(self, label: str, phase: str, done: int, total: int) -> None:
        """A cell reports `done` of `total` in a phase."""
        now = time.monotonic()
        if self.phases.get(label, ("", 0.0, 0))[0] != phase:
            self.phases[label] = (phase, now, done)
        _, began, first = self.phases[label]
        rate = (done - first) / (now - began) if now - began > 0.5 else 0.0
        state = f"{phase} {done:,}/{total:,}"
        if rate > 0:
            unit = "images/s" if phase.split()[0] in ("training", "sampling", "likelihood") else "/s"
            state += f"  {rate:,.0f} {unit}  {duration((total - done) / rate)} left"
        if self.live:
            if label not in self.tasks:
                self.tasks[label] = self.bars.add_task(escape(printable(label)), total=1, state="")
            self.bars.update(self.tasks[label], total=max(total, 1), completed=done, state=escape(printable(state)))
        elif now - self.last_line.get(label, self.started) > _LINE_EVERY_S:
            self.last_line[label] = now
            self._line(f"{label}: {state}")

    def finished(self, label: str, outcome: str) -> None:
        """A cell has ended; says how, in a line that stays."""
        self.done += 1
        if label in self.tasks:
            self.bars.remove_task(self.tasks.pop(label))
        self.phases.pop(label, None)
        self.bars.update(self.total, completed=self.done, state=f"{self.done}/{self.cells}")
        self._line(f"[{self.done}/{self.cells}] {label}: {outcome}")

    def _line(self, text: str) -> None:
        elapsed = duration(time.monotonic() - self.started)
        console = self.bars.console if self.live else self.console
        console.print(f"{elapsed:>7}  {printable(text)}", markup=False, highlight=False, soft_wrap=True)

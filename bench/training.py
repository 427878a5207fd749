"""Training the models of a matrix without measuring them: alone, or each by several processes together."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from baselines.errors import UserError
from baselines.sharing import Team
from bench import store
from bench.job import Job, Setup
from bench.matrix import Wanted
from bench.plan import open_dataset, plan, what_is_left
from bench.progress import Display
from bench.runner import locked
from bench.teachers import waves
from bench.worker import train_job, why_not_shared


def train_matrix(
    selected: Sequence[Wanted], teachers: Sequence[Wanted], setup: Setup, team: Team, console: Console
) -> int:
    """Train what is selected and has no checkpoint yet; `trilemma run` then finds it trained.

    Every rank of a team calls this. Rank 0 plans, keeps the checkpoints and tells how it goes; they all need the same
    data sets, and the results folder where a model learns from another's checkpoint. A training that fails ends it.

    Returns:
        How many trainings were left out, since a team cannot share them.

    Raises:
        UserError: for bad input, or a results folder in use.
    """
    if team.rank > 0:
        jobs: list[Job] = team.told([])
        for job in jobs:
            _train(job, team, None)
        return 0
    with locked(setup.results):
        trainings = plan(selected, setup, teachers)
        todo = what_is_left(trainings, {record.key: record for record in store.load(setup.results).records})
        for note in todo.notes:
            console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
        missing = [job for wave in waves(todo.trainings) for job in wave if job.key not in todo.trained]
        refused = {job.key: why for job in missing if (why := why_not_shared(job, team))}
        for why in dict.fromkeys(refused.values()):
            console.print(f"note: without {why}", style="yellow", markup=False, soft_wrap=True)
        out = {job.train_key for job in missing if job.key in refused}
        lost = [job for job in missing if job.key in refused or (job.teacher and job.teacher.train_key in out)]
        missing = [job for job in missing if job not in lost]
        how = f", each by {team.size} processes" if team.size > 1 else ""
        console.print(f"{len(trainings) - len(missing) - len(lost)} trained before, {len(missing)} to train{how}")
        team.told(missing)
        with Display(console, len(missing)) as display:
            for job in missing:
                _train(job, team, display)
    return len(lost)


def _train(job: Job, team: Team, display: Display | None) -> None:
    _, data = open_dataset(job.cell.dataset, job.setup.data_dir)
    if team.told(data) != data:
        raise UserError(f"{job.cell.dataset}: expected rank 0's data, got other data on rank {team.rank}")
    if display is None:
        train_job(job, lambda progress: None, team)
        return
    train_job(job, lambda progress: display.progress(job.label, *progress), team)
    display.finished(job.label, "trained")

"""Which parameters a phase learns, and how the others are left alone meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from baselines.contract import GenerativeModel, Phase
from baselines.errors import UserError


def phase_parameters(model: GenerativeModel, phase: Phase) -> list[nn.Parameter]:
    """What a phase learns.

    Raises:
        UserError: if that is nothing.
    """
    parameters = [p for name in phase.modules for p in model.get_submodule(name).parameters() if p.requires_grad]
    if not parameters:
        raise UserError(f"phase {phase.name!r}: the modules {phase.modules} have no parameters")
    return parameters


def others(model: nn.Module, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """What else in the model learns."""
    mine = set(map(id, parameters))
    return [p for p in model.parameters() if p.requires_grad and id(p) not in mine]


@contextmanager
def without_gradients(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Gradients flow through these but are not collected there."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

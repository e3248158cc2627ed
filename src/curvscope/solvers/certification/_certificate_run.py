"""A certificate in a run: what it has measured is kept until it is complete, so that the same command resumes."""

from __future__ import annotations

import logging
from typing import Any

import torch

from curvscope.certificates import LanczosState
from curvscope.errors import DamagedData, RunNotFound
from curvscope.measurement import DECISIONS, InRun, Workspace, scope_of
from curvscope.operators.base import Operator
from curvscope.solvers.certification._certificate_room import Room
from curvscope.solvers.results import Solution
from curvscope.store import Record, Run, remove
from curvscope.tall import TallMatrix

log = logging.getLogger(__name__)


class CertificateRun(InRun):
    """The workspace of a certificate in a run: its Lanczos basis and records have places of their own.

    The solve's decisions and stages stay as they are: a certificate may be in higher precision, and is no part of the solve.
    """

    bases, state_name = "certificate", "certificate"

    def state(self, operator: Operator) -> tuple[TallMatrix, Record] | None:
        """See :meth:`Workspace.state`; None if it is damaged, or of another certificate: it is measured again."""
        try:
            record = self.run.records.read(self.state_name)
            if record is None or record.facts.get("scope") != self.scope:
                return None
            return super().state(operator)
        except (DamagedData, RunNotFound) as error:
            log.warning("%s: the certificate is measured again", error)
            return None

    def note(self, stage: str, **facts: Any) -> None:
        """See :meth:`Workspace.note`."""
        super().note(f"certificate: {stage}", **facts)

    def seconds_before(self, stage: str) -> float:
        """See :meth:`Workspace.seconds_before`."""
        return super().seconds_before(f"certificate: {stage}")

    def freeze(self, operator: Operator) -> Operator:
        """Return the operator as it is: the products of the solve are what a run fixes."""
        return operator

    def recorded_strategy(self) -> dict[str, Any] | None:
        """See :meth:`Workspace.recorded_strategy`; any."""
        return None

    def clear(self) -> None:
        """Remove what was kept to resume: the certificate is complete."""
        remove(self.run.path / self.bases)
        self.run.records.remove(self.state_name)
        remove(self.run.records.folder / self.scope)


def certificate_workspace(
    run: Run, operator: Operator, solution: Solution, room: Room, options: dict[str, Any]
) -> CertificateRun:
    """The workspace of a certificate in a run whose session this process has."""
    assert run.work is not None
    run.manifest.setdefault(DECISIONS, {})
    facts = {"method": "certificate", "fingerprint": operator.fingerprint, "dtype": str(operator.dtype), **options}
    scope = scope_of({**facts, "eigenvalues": solution.eigenvalues.tolist()})
    return CertificateRun(run, scope, resident=not room.on_disk, tile_columns=1, widest=room.block_size, work=run.work)


def lanczos_state(workspace: Workspace, operator: Operator, steps: int) -> LanczosState | None:
    """The Lanczos run of a certificate in a run, from where it was; None in memory."""
    if not isinstance(workspace, CertificateRun):
        return None

    def keep(state: LanczosState) -> None:
        """Save the state after a step, with what it has cost."""
        facts = {"filled": state.made + 1, "made": state.made, "scope": workspace.scope, "spent": {"products": state.made}}
        workspace.save_state(state.basis, facts, {"coefficients": state.coefficients})

    found = workspace.state(operator)
    if found is not None:
        basis, (facts, tensors) = found
        return LanczosState(basis, facts["made"], tensors["coefficients"], keep)
    remove(workspace.run.path / workspace.bases)
    basis = workspace.basis(operator.shape[0], steps + 1, operator)
    return LanczosState(basis, 0, torch.zeros(steps + 1, steps, dtype=torch.float64, device="cpu"), keep)

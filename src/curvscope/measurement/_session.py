"""A solve's session: the workspace it works in, opened, locked and compared with what the run was begun with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curvscope.errors import OutOfDisk, RunConflict
from curvscope.measurement._run_workspace import DECISIONS, InRun
from curvscope.measurement._storage import Place
from curvscope.measurement._workspace import Fit, Workspace
from curvscope.operators import Square, Submatrix, Sum, operator_differences, recorded
from curvscope.operators.base import Operator
from curvscope.store import MANIFEST, Run, usable_path, write_tensors
from curvscope.system import as_text

PARAMETERS = "parameters.safetensors"


@contextmanager
def workspace(
    run: Place | Run | None,
    operator: Operator,
    options: dict[str, Any],
    *,
    free: Iterable[str] = (),
    fitted: Fit | None = None,
) -> Iterator[Workspace]:
    """The workspace of a solve: that of the run at a path, made or resumed, or one in memory.

    Args:
        run: where; None: in memory.
        operator: what is measured.
        options: of the solve.
        free: names of the options that may differ from those that the run was begun with.
        fitted: how the solve fits into memory; None: it does. A run that was begun on disk stays there.

    Raises:
        RunConflict: the run is another solve's (each difference is named), or another process works on it.
        OutOfDisk: a new run would not fit on its disk.
    """
    fitted = fitted or Fit(options.get("block_size", 1), True, None)
    if run is None:
        made = Workspace(fitted.widest, on_host=fitted.on_host)
        made.products = fitted.products
        yield made
        return
    opened = run if isinstance(run, Run) else Run.resume(run, kind="eigs", options={})
    if not opened.manifest.get("solve"):
        check_disk(opened.path, fitted.disk)
    with opened.session() as work:
        claim_operator(opened, operator)
        opened.claim("solve", options, free=free)
        _keep_parameters(opened, operator)
        decisions = opened.manifest.setdefault(DECISIONS, {})
        resident = decisions["resident"] = fitted.resident and decisions.get("resident", True)
        on_host = decisions["on_host"] = fitted.on_host or decisions.get("on_host", False)
        widest = decisions["widest"] = min(fitted.widest, decisions.get("widest", fitted.widest))
        width = fitted.block_size
        opened.save()
        where = {"resident": resident, "on_host": on_host, "tile_columns": width, "widest": widest}
        place = InRun(opened, scope_of(options), **where, work=work)
        place.products = fitted.products
        yield place


def check_disk(path: Path, needed: int) -> None:
    """Raise OutOfDisk unless there is room for so many bytes where ``path`` is, or will be."""
    folder = nearest_folder(path)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutOfDisk(
            f"the run needs up to {as_text(needed)} of disk, {as_text(free)} are free at {folder}: free some, choose another "
            "disk, or a smaller k, ncv or sketch"
        )


def nearest_folder(path: Path) -> Path:
    """The nearest folder at or above a path that exists: on the same disk."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def _keep_parameters(run: Run, operator: Operator) -> None:
    """The parameters at which a curvature operator is measured go into the run, and the buffers beside them."""
    objective = operator.stored_objective
    if objective is not None and not (run.path / PARAMETERS).exists():
        values = objective.parameters.join(objective.values)
        tensors = objective.parameters.unflatten(values.cpu()) | objective.buffers
        write_tensors(run.path / PARAMETERS, tensors, run.mark)


def claim_operator(run: Run, operator: Operator) -> None:
    """Record what a run measures, or compare it with what the run was begun with.

    Raises:
        RunConflict: it is another operator; each difference is named.
    """
    facts, known = _described(operator) | recorded(operator), run.manifest.get("operator")
    if known is not None:
        if differing := operator_differences(known, operator):
            raise RunConflict(
                f"{run.path} is of another operator: {'; '.join(differing)}. Pass the run's own, or choose another directory"
            )
        # what the run was begun with stays: small differences must not add up from session to session
        facts |= {name: known[name] for name in ("fingerprint", "identity") if name in known}
    run.claim("operator", facts)


def _described(operator: Operator) -> dict[str, Any]:
    return {
        "kind": type(operator).__name__,
        "shape": list(operator.shape),
        "dtype": str(operator.dtype).removeprefix("torch."),
        "device": str(operator.device),
        **({"microbatch": pieces} if (pieces := _microbatches(operator)) else {}),
    }


def _microbatches(operator: Operator) -> list[int]:
    """Most samples at a time in every curvature matrix of an operator: the same matrix with others, to rounding."""
    if isinstance(operator, Sum):
        return [size for _, term in operator.terms for size in _microbatches(term)]
    if isinstance(operator, Square | Submatrix):
        return _microbatches(operator.inner)
    own = None if operator.objective is None else operator.objective.microbatch
    return [] if own is None else [own]


def begun_with(run: Place | Run | None, option: str) -> Any:
    """The value of an option of the solve that a run was begun with; None if it was not."""
    return _manifest(run).get("solve", {}).get(option)


def was_begun(run: Place | Run | None, operator: Operator) -> bool:
    """Return whether a run has measurements of this very operator."""
    return begun_with(run, "method") is not None and not operator_differences(_manifest(run)["operator"], operator)


def _manifest(run: Place | Run | None) -> dict[str, Any]:
    if run is None or (not isinstance(run, Run) and not (usable_path(run) / MANIFEST).exists()):
        return {}
    return (run if isinstance(run, Run) else Run.open(run)).manifest


def scope_of(options: dict[str, Any]) -> str:
    """A name for a solve: its method and a digest of all its options."""
    digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=6).hexdigest()
    return f"{options.get('method', 'solve')}-{digest}"

"""Products of an operator as solvers take them: counted, timed, remembered in a run, dealt out to workers."""

from curvscope.measurement._distributed import BLOCKS_EACH, Distributed, check_recipe, open_workers
from curvscope.measurement._drawing import draw
from curvscope.measurement._gram_schmidt import orthogonalize_column, split_off, whole_columns
from curvscope.measurement._lanczos import Recurrence, lanczos
from curvscope.measurement._meter import Meter
from curvscope.measurement._products import Measured, blocks, check_hermitian, refuse_asymmetry, remembered
from curvscope.measurement._results import CERTIFIED, has_results, results_of
from curvscope.measurement._run_workspace import DECISIONS, InRun
from curvscope.measurement._session import (
    PARAMETERS,
    begun_with,
    check_disk,
    nearest_folder,
    scope_of,
    was_begun,
    workspace,
)
from curvscope.measurement._storage import EIGEN, SINGULAR, TABLE, Place, form_of, read_result, rewrite_table, write_result
from curvscope.measurement._workspace import WIDEST_BLOCK, Fit, Known, Workspace, output_like

__all__ = [
    "BLOCKS_EACH",
    "CERTIFIED",
    "DECISIONS",
    "EIGEN",
    "PARAMETERS",
    "SINGULAR",
    "TABLE",
    "WIDEST_BLOCK",
    "Distributed",
    "Fit",
    "InRun",
    "Known",
    "Measured",
    "Meter",
    "Place",
    "Recurrence",
    "Workspace",
    "begun_with",
    "blocks",
    "check_disk",
    "check_hermitian",
    "check_recipe",
    "draw",
    "form_of",
    "has_results",
    "lanczos",
    "nearest_folder",
    "open_workers",
    "orthogonalize_column",
    "output_like",
    "read_result",
    "refuse_asymmetry",
    "remembered",
    "results_of",
    "rewrite_table",
    "scope_of",
    "split_off",
    "was_begun",
    "whole_columns",
    "workspace",
    "write_result",
]

"""Studies by name."""

from __future__ import annotations

from curvscope.errors import InvalidArgument
from curvscope.studies.beyond import alignment, another_sample, beyond, perturbations
from curvscope.studies.engine import Study
from curvscope.studies.sagun import gradient_subspace, sagun_batch, sagun_data, sagun_size, sagun_split
from curvscope.studies.sketched_overlap import (
    grassmann_metrics,
    mnist16_crystallization,
    mnist16_overlap,
    mnist16_proxies,
    overlap_at_scale,
    runtimes,
)
from curvscope.studies.stability import edge_of_stability, eigenvectors_along_training

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        grassmann_metrics,
        mnist16_overlap,
        mnist16_crystallization,
        mnist16_proxies,
        overlap_at_scale,
        runtimes,
        beyond,
        alignment,
        perturbations,
        another_sample,
        sagun_size,
        sagun_data,
        sagun_split,
        sagun_batch,
        gradient_subspace,
        edge_of_stability,
        eigenvectors_along_training,
    )
}


def get_study(name: str) -> Study:
    """A study by name.

    Raises:
        InvalidArgument: there is no such study.

    >>> get_study("mnist16-overlap").shows
    'figure 1 (left), figure 4 (left), figure 14, figure 15 (top)'
    """
    if name not in STUDIES:
        raise InvalidArgument(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}")
    return STUDIES[name]

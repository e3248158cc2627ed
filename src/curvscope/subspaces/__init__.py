"""Subspaces of the parameter space compared: masks, angles, metrics, overlap, chance, proxies."""

from curvscope.subspaces import grassmann, masks, proxies
from curvscope.subspaces._chance import NullModel, mask_null
from curvscope.subspaces._concentration import (
    SpectralConcentration,
    concentration_curve,
    effective_number,
    gini,
    hoyer,
    kappa,
    layer_shares,
    mask_size,
    participation_ratio,
    space_layer_shares,
    spectral_concentration,
)
from curvscope.subspaces._curve import FractionCurve, OverlapCurve
from curvscope.subspaces._given import as_subspace, is_given_mask
from curvscope.subspaces._leverage import leverage
from curvscope.subspaces._matrices import OverlapMatrix, overlap_matrix, similarity_matrix
from curvscope.subspaces._overlap import best_overlap, gradient_fraction, overlap
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import LARGEST_DEFECT
from curvscope.subspaces._splitting import Splitting, splitting
from curvscope.subspaces._without_vectors import OverlapEstimate, QuadraturePlan, overlap_without_vectors, plan_without_vectors

__all__ = [
    "LARGEST_DEFECT",
    "FractionCurve",
    "Mask",
    "NullModel",
    "OverlapCurve",
    "OverlapEstimate",
    "OverlapMatrix",
    "QuadraturePlan",
    "Ranking",
    "SpectralConcentration",
    "Splitting",
    "as_subspace",
    "best_overlap",
    "concentration_curve",
    "effective_number",
    "gini",
    "gradient_fraction",
    "grassmann",
    "hoyer",
    "is_given_mask",
    "kappa",
    "layer_shares",
    "leverage",
    "mask_null",
    "mask_size",
    "masks",
    "overlap",
    "overlap_matrix",
    "overlap_without_vectors",
    "participation_ratio",
    "plan_without_vectors",
    "proxies",
    "similarity_matrix",
    "space_layer_shares",
    "spectral_concentration",
    "splitting",
]

"""Comparing two subspaces: principal angles, distances, similarities, what chance gives, bijections between metrics."""

from curvscope.subspaces.grassmann._angles import angles
from curvscope.subspaces.grassmann._baseline import Baseline, baseline, random_angles, random_mask_angles
from curvscope.subspaces.grassmann._bijections import (
    hamming_from_iou,
    hamming_from_overlap,
    iou_from_hamming,
    iou_from_overlap,
    overlap_from_hamming,
    overlap_from_iou,
    overlap_from_projection_f,
    projection_f_from_overlap,
)
from curvscope.subspaces.grassmann._metrics import (
    METRICS,
    Metric,
    distance,
    distance_of_angles,
    largest_distance,
    log_cosine,
    similarity,
    similarity_of_angles,
)

__all__ = [
    "METRICS",
    "Baseline",
    "Metric",
    "angles",
    "baseline",
    "distance",
    "distance_of_angles",
    "hamming_from_iou",
    "hamming_from_overlap",
    "iou_from_hamming",
    "iou_from_overlap",
    "largest_distance",
    "log_cosine",
    "overlap_from_hamming",
    "overlap_from_iou",
    "overlap_from_projection_f",
    "projection_f_from_overlap",
    "random_angles",
    "random_mask_angles",
    "similarity",
    "similarity_of_angles",
]

"""What the papers left open: beyond their networks, why large weights align, random steps along masks."""

from curvscope.studies.beyond import (
    _alignment as alignment,
    _another_sample as another_sample,
    _beyond as beyond,
    _perturbations as perturbations,
)

__all__ = [
    "alignment",
    "another_sample",
    "beyond",
    "perturbations",
]

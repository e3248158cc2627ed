"""What a study is and how it is run: stages, checkpoints, settings, tables."""

from curvscope.studies.engine._checkpoints import recorded
from curvscope.studies.engine._claims import (
    UNDECIDED,
    Verdict,
    claim,
    claims_table,
    half_width,
    share_holding,
    share_verdict,
    summary,
    verdict,
)
from curvscope.studies.engine._items import items
from curvscope.studies.engine._settings import with_settings
from curvscope.studies.engine._study import NUMBERS, PAGE, Stages, Study, published, run_study
from curvscope.studies.engine._tables import Row, comparison, row, within

__all__ = [
    "NUMBERS",
    "PAGE",
    "UNDECIDED",
    "Row",
    "Stages",
    "Study",
    "Verdict",
    "claim",
    "claims_table",
    "comparison",
    "half_width",
    "items",
    "published",
    "recorded",
    "row",
    "run_study",
    "share_holding",
    "share_verdict",
    "summary",
    "verdict",
    "with_settings",
    "within",
]

"""The machine: memory, threads, devices, precision, progress, interrupts, and checks of arguments."""

from curvscope.system._arguments import as_numbers, check_options, checked, integer
from curvscope.system._contention import Contention
from curvscope.system._devices import preferred, visible
from curvscope.system._displays import Advance
from curvscope.system._interrupt import Interruptible
from curvscope.system._keywords import KEYWORDS, SAME, same_choice, unknown_argument
from curvscope.system._precision import TF32, TF32_EPS, check_precision, float32_products, in_tf32
from curvscope.system._progress import Progress, is_long_work, long_work, products_to_come, stage
from curvscope.system._resources import (
    SAFE_SHARE,
    as_bytes,
    as_text,
    default_memory,
    extra_memory,
    give_back,
    peak_resident_bytes,
    resident_bytes,
)
from curvscope.system._synonyms import Displayed, Hinted, Numbers, missing_attribute
from curvscope.system._tables import frame
from curvscope.system._threads import threads

__all__ = [
    "KEYWORDS",
    "SAFE_SHARE",
    "SAME",
    "TF32",
    "TF32_EPS",
    "Advance",
    "Contention",
    "Displayed",
    "Hinted",
    "Interruptible",
    "Numbers",
    "Progress",
    "as_bytes",
    "as_numbers",
    "as_text",
    "check_options",
    "check_precision",
    "checked",
    "default_memory",
    "extra_memory",
    "float32_products",
    "frame",
    "give_back",
    "in_tf32",
    "integer",
    "is_long_work",
    "long_work",
    "missing_attribute",
    "peak_resident_bytes",
    "preferred",
    "products_to_come",
    "resident_bytes",
    "same_choice",
    "stage",
    "threads",
    "unknown_argument",
    "visible",
]

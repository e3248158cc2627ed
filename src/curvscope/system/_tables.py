"""Data frames of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curvscope.errors import MissingExtra


def frame(columns: Mapping[str, Any], index: Any = None) -> Any:
    """A pandas data frame.

    Raises:
        MissingExtra: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtra("to_pandas() needs pandas: pip install pandas; to_dict() gives plain numbers") from error
    return pandas.DataFrame(dict(columns), index=index)

"""Arguments of the user's function, from ``--arg name=value`` and from a YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from curvscope.errors import InvalidArgument


def arguments_of(config: Path | None, words: Iterable[str]) -> dict[str, Any]:
    """Return the arguments in a YAML file, with those of the words added or in their place.

    Values are YAML: numbers, true, null, [1, 2]. A dotted name sets an entry inside a mapping; ``${name}`` refers to another
    value.

    Args:
        config: the file; None: none.
        words: ``name=value``, later ones first.

    Raises:
        InvalidArgument: a word without "=", or a file that cannot be read or holds no mapping.

    >>> arguments_of(None, ["lr=1e-3", "name=net", "model.width=8", "sizes=[1, 2]", "last=null"])
    {'lr': 0.001, 'name': 'net', 'model': {'width': 8}, 'sizes': [1, 2], 'last': None}
    """
    words = list(words)
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise InvalidArgument(f"--arg {word!r}: write name=value, such as width=8")
    try:
        loaded = OmegaConf.create() if config is None else OmegaConf.load(config)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise InvalidArgument(f"--config {config}: cannot be read ({_first_line(error)})") from error
    if not OmegaConf.is_dict(loaded):
        raise InvalidArgument(f"--config {config}: expected lines such as 'width: 8', got a {type(loaded).__name__}")
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(loaded, OmegaConf.from_dotlist(words)), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        where = " and ".join([f"--config {config}"] * (config is not None) + [f"--arg {word}" for word in words])
        raise InvalidArgument(f"{where}: {_first_line(error)}") from error
    return {str(name): value for name, value in merged.items()} if isinstance(merged, dict) else {}


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

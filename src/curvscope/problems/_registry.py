"""Problems by name."""

from __future__ import annotations

import os
from collections.abc import Callable

from curvscope.errors import InvalidArgument
from curvscope.problems._base import Problem
from curvscope.problems._cifar10_3c3d import Cifar10With3c3d
from curvscope.problems._cifar100_allcnnc import Cifar100WithAllCnnC
from curvscope.problems._crepe import Crepe, CrepeTiny
from curvscope.problems._huggingface import CONFIGURED, TRAINED, HuggingFace
from curvscope.problems._imagenet_resnet18 import ImagenetWithResnet18
from curvscope.problems._mnist16 import Mnist16
from curvscope.problems._textgpt import TextGpt
from curvscope.problems._tinygpt import TinyGpt
from curvscope.system import checked

PROBLEMS: dict[str, Callable[..., Problem]] = {
    problem.name: problem
    for problem in (Mnist16, Cifar10With3c3d, Cifar100WithAllCnnC, ImagenetWithResnet18, TinyGpt, TextGpt, Crepe, CrepeTiny)
}


def names() -> list[str]:
    """The problems there are.

    >>> "mnist16" in names()
    True
    """
    return sorted(PROBLEMS)


@checked
def get(name: str, *, data: str | os.PathLike[str] | None = None) -> Problem:
    """A problem by name.

    Args:
        name: one of :func:`names`; or ``"hf:NAME"``, a trained Hugging Face model on the hub or in a folder; or
            ``"hf-config:NAME"``, the same by its configuration alone, with weights drawn from the seed.
        data: directory with the full data set; None: the packaged part of it, where there is one (mnist16, texts).

    Raises:
        InvalidArgument: no such problem.

    >>> get("mnist16").defaults.learning_rate
    0.3
    """
    kind, separator, place = name.partition(":")
    if separator and kind in (TRAINED, CONFIGURED) and place:
        return HuggingFace(place, trained=kind == TRAINED, data=data)
    if name not in PROBLEMS:
        raise InvalidArgument(f"there is no problem {name!r}: choose one of {', '.join(names())}, or hf:NAME")
    return PROBLEMS[name](data=data)

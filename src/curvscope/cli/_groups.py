"""Groups of options that several commands share, handed to a command as one object.

Typer has no groups of its own (https://github.com/fastapi/typer/issues/153). It reads a command's options from its signature,
so a command may take a dataclass, and :func:`grouped` gives Typer a signature in which the fields stand in its place. Each
field is annotated as an option is: ``Annotated[type, typer.Option(...)]``; fields with ``init=False`` are no options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the fields of its dataclasses as options of its own.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     width: int = 1
    ...     height: int = 2
    >>> def area(name: str, size: Size) -> None:
    ...     print(name, size.width * size.height)
    >>> list(signature(grouped(area)).parameters)
    ['name', 'width', 'height']
    >>> grouped(area)(name="door", width=3, height=2)
    door 6
    """
    groups: dict[str, type[Any]] = {}
    flat: list[Parameter] = []
    for parameter in signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            hints = get_type_hints(kind, include_extras=True)
            flat += [_as_parameter(field, hints[field.name]) for field in fields(kind) if field.init]
        else:
            flat.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    def run(**given: Any) -> None:
        """Gather the fields into their objects and call the command."""
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group) if field.init})
        command(**given)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    run.__signature__ = Signature(flat)  # type: ignore[attr-defined]
    return run


def _as_parameter(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

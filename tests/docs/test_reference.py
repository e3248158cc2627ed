"""Every public name is in the reference, documented, with a doctest; that it runs is what --doctest-modules is for."""

import inspect
import re
from pathlib import Path
from pkgutil import resolve_name

import curvscope

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
DIRECTIVE = re.compile(r"^::: (curvscope[.\w]*)\n(?: +.*\n)*?(?: +members: \[(.*)\])?$", re.MULTILINE)
NEED_MORE = {"lightning_callback", "trainer_callback"}  # a training loop of a library that is not installed for the tests


def members(module):
    """What a module documents: its __all__, else its own functions and classes without an underscore."""
    names = getattr(module, "__all__", None) or [
        name for name, found in vars(module).items() if name[0] != "_" and own(module, found)
    ]
    return [getattr(module, name) for name in names]


def own(module, found):
    return (inspect.isfunction(found) or inspect.isclass(found)) and found.__module__ == module.__name__


def documented():
    """Every object in the reference, modules as what is in them."""
    found = []
    for page in REFERENCE.glob("*.md"):
        for place, names in DIRECTIVE.findall(page.read_text()):
            thing = resolve_name(place)
            if names:
                found += [getattr(thing, name) for name in names.split(", ")]
            else:
                found += members(thing) if inspect.ismodule(thing) else [thing]
    return [thing for thing in found if inspect.isfunction(thing) or inspect.isclass(thing)]


def test_every_public_name_is_in_the_reference():
    shown = set(documented()) | {
        resolve_name(place) for page in REFERENCE.glob("*.md") for place, _ in DIRECTIVE.findall(page.read_text())
    }
    missing = [name for name in curvscope.__all__ if name != "__version__" and getattr(curvscope, name) not in shown]
    assert missing == []


def test_every_documented_name_has_a_doctest():
    without = []
    for thing in documented():
        texts = [thing.__doc__ or ""]
        if inspect.isclass(thing):
            texts += [inspect.getdoc(member) or "" for member in vars(thing).values()]
        is_error = inspect.isclass(thing) and issubclass(thing, BaseException) and thing is not curvscope.CurvscopeError
        if not is_error and thing.__name__ not in NEED_MORE and not any(">>>" in text for text in texts):
            without.append(f"{thing.__module__}.{thing.__name__}")
    assert without == []

"""The reference as one page a public name, from the lists in ``docs/reference``: each list becomes a table of its names.

A list names what it documents as mkdocstrings does, ``::: curvscope.eigsh``. A package or module in it stands for its members.
"""

import inspect
import re
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, NamedTuple

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
DIRECTIVE = re.compile(r"^::: (curvscope[.\w]*)\n((?: +.*\n)*)", re.MULTILINE)
MEMBERS = re.compile(r"members: \[(.*)\]")
ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")
SHORT = {"masks", "grassmann", "proxies", "problems", "testing"}
"""Modules whose members are written with the module's name."""


class Name(NamedTuple):
    """A public name: where it is defined, how users write it, and what it is in a sentence."""

    place: str
    written: str
    summary: str

    @property
    def page(self) -> str:
        """Its page in the folder of its list; ``Plan`` and ``plan`` would be one file where the case of letters is ignored."""
        return f"{self.written}-class.md" if self.written.rpartition(".")[2][0].isupper() else f"{self.written}.md"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every name, put tables in place of the lists, and nest the pages in the navigation."""
    sys.path.insert(0, str(DOCS.parent / "src"))
    nested = {}
    for page in sorted((DOCS / "reference").glob("*.md")):
        text = page.read_text()
        names = names_in(text)
        uri = f"reference/{page.name}"
        files.remove(files.src_uris[uri])
        files.append(File.generated(config, uri, content=contents(text, names, page.stem)))
        for name in names:
            files.append(File.generated(config, f"reference/{page.stem}/{name.page}", content=page_of(name)))
        nested[uri] = [uri, *({name.written: f"reference/{page.stem}/{name.page}"} for name in names)]
    for entry in config.nav:
        if isinstance(entry, dict) and "Reference" in entry:
            entry["Reference"] = [{title: nested.get(uri, uri)} for group in entry["Reference"] for title, uri in group.items()]
    return files


def names_in(text: str) -> list[Name]:
    """The names that a list documents, in its order."""
    found = []
    for place, options in DIRECTIVE.findall(text):
        thing = resolve_name(place)
        if not isinstance(thing, ModuleType):
            found.append(name_of(place, thing, place.rpartition(".")[2]))
            continue
        asked = MEMBERS.search(options)
        prefix = place.rpartition(".")[2]
        for member in asked[1].split(", ") if asked else public(thing):
            written = f"{prefix}.{member}" if prefix in SHORT else member
            found.append(name_of(f"{place}.{member}", getattr(thing, member), written))
    return found


def name_of(place: str, thing: Any, written: str) -> Name:
    """A name with the first sentence of its docstring, roles as code."""
    first = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return Name(place, written, ROLE.sub(r"`\1`", first).replace("|", r"\|"))


def contents(text: str, names: list[Name], folder: str) -> str:
    """A list's page: its heading and words, and a table of its names."""
    words = DIRECTIVE.sub("", text).strip()
    rows = [f"| [`{name.written}`]({folder}/{name.page}) | {name.summary} |" for name in names]
    return "\n".join([words, "", "| name | |", "| --- | --- |", *rows, ""])


def page_of(name: Name) -> str:
    """The page of one name."""
    return f"---\ntitle: {name.written}\n---\n\n::: {name.place}\n    options:\n      heading_level: 1\n"


def public(module: ModuleType) -> list[str]:
    """Return the names that a module shows: its ``__all__``, else its own functions and classes without an underscore."""
    here = module.__name__
    own = [name for name, thing in vars(module).items() if name[0] != "_" and getattr(thing, "__module__", "") == here]
    listed = getattr(module, "__all__", own)
    return [name for name in listed if inspect.isfunction(getattr(module, name)) or inspect.isclass(getattr(module, name))]

"""Imports run downwards only, as the architecture says."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import curvscope

ROOT = Path(curvscope.__file__).parent

# Each room may import the rooms before it, and itself; rooms on one floor do not know each other.
# certificates lies below the solvers, which tell "converged" by its pure functions; sketches above tall: applying a test matrix
# to a tall one, panel by panel, is the one thing that only it knows how to do cheaply; store below all that keep files.
FLOORS = [
    {"errors"},
    {"system"},
    {"store"},
    {"tall"},
    {"certificates", "parallel", "sketches"},
    {"operators"},
    {"measurement"},
    {"solvers"},
    {"estimators"},
    {"systems"},
    {"subspaces"},
    {"sampling"},
    {"problems"},
    {"training"},
    {"report"},
    {"runs"},
    {"studies"},
    {"cli"},
    {"testing"},
]
# Those that must stay pure: what they may see beside themselves.
PURE = {
    "solvers/sketched/_recovery.py": {"errors", "tall"},
    "system": {"errors"},
    "certificates": {"errors", "store", "system", "tall"},
    "store": {"errors", "system"},
    "tall": {"errors", "store"},
    "sketches": {"errors", "tall"},
}
# Namespaces that users import by name; every other file is private to its room.
NAMESPACES = {
    "curvscope.errors",
    "curvscope.execution",
    "curvscope.operators.base",
    "curvscope.operators.fingerprint",
    "curvscope.subspaces.masks",
    "curvscope.subspaces.proxies",
    "curvscope.testing.sharding",
    "curvscope.cli.main",
}


def imported_rooms(path):
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            names = [node.module] if node.module != "curvscope" else [f"curvscope.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("curvscope.")}
    return rooms


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path):
    """Modules of ours that a file imports anywhere, also inside functions, but not for annotations alone."""
    found, waiting = set(), [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("curvscope"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found & set(MODULES)


def floor_of(room):
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"{room} has no floor: add it to FLOORS where the architecture puts it")


FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)
MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    room = path.relative_to(ROOT).parts[0]
    for other in imported_rooms(path) - {room}:
        if room == "cli" and other == "__version__":
            continue
        assert floor_of(other) < floor_of(room), f"{path.relative_to(ROOT)} imports {other}, which is not below {room}"


def test_files_are_private_but_for_the_namespaces():
    public = {name for name, path in MODULES.items() if path.name != "__init__.py" and not path.name.startswith("_")}
    assert public == NAMESPACES


def private_files_imported_by(name, path):
    """Private files of other packages; those of a package that holds this one are its own room's."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    others = {other for other in imported_modules(path) if other.rpartition(".")[2].startswith("_")}
    return {other for other in others if not f"{package}.".startswith(f"{other.rpartition('.')[0]}.")}


@pytest.mark.parametrize("name", MODULES)
def test_private_files_are_imported_by_their_own_room_alone(name):
    assert not private_files_imported_by(name, MODULES[name])


def test_the_test_sees_a_private_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from curvscope.tall._matrix import TallMatrix\nfrom curvscope.tall import gram\n")
    assert private_files_imported_by("curvscope.solvers._bad", bad) == {"curvscope.tall._matrix"}
    assert not private_files_imported_by("curvscope.tall._bad", bad)


def circle_in(graph):
    """Some nodes that lead to one another; None: there are none."""
    done = set()
    for first in graph:
        path, waiting = [], [(first, iter(graph[first]))] if first not in done else []
        path += [node for node, _ in waiting]
        while waiting:
            node, following = waiting[-1]
            other = next((found for found in following if found not in done), None)
            if other is None:
                done.add(node)
                waiting.pop()
                path.pop()
            elif other in path:
                return path[path.index(other) :]
            else:
                waiting.append((other, iter(graph[other])))
                path.append(other)
    return None


def test_no_files_import_each_other():
    """A package stands for its files: who imports from it waits for all of them; its own ``__init__`` is no station."""
    graph = {name: set() for name, path in MODULES.items() if path.name != "__init__.py"}
    files_of = {
        name: {other for other in graph if other.rpartition(".")[0] == name}
        for name, path in MODULES.items()
        if path.name == "__init__.py" and name != "curvscope"
    }
    for name in graph:
        for other in imported_modules(MODULES[name]):
            if other in graph:
                graph[name].add(other)
            elif not f"{name}.".startswith(f"{other}."):
                graph[name] |= files_of.get(other, set())
    assert circle_in(graph) is None


def test_the_test_sees_a_circle():
    assert set(circle_in({"a": ["b"], "b": ["c"], "c": ["b"]})) == {"b", "c"}
    assert circle_in({"a": ["b", "c"], "b": ["c"], "c": []}) is None


PACKAGES = [name for name, path in MODULES.items() if path.name == "__init__.py"]


@pytest.mark.parametrize("name", [*PACKAGES, *sorted(NAMESPACES)])
def test_all_lists_the_public_names(name):
    module = importlib.import_module(name)
    assert all(hasattr(module, public) for public in module.__all__)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    if name in PACKAGES:
        imported = imported_at_the_top(MODULES[name])
        assert set(imported) == set(module.__all__) - {"__version__"}


def imported_at_the_top(path):
    """Names that a package imports from others, and where from; also those that type checkers alone see."""
    body = ast.parse(path.read_text()).body
    nodes = [*body, *(inner for node in body if isinstance(node, ast.If) for inner in node.body)]
    return {
        alias.asname or alias.name: node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("curvscope")
        for alias in node.names
    }


def test_names_are_imported_late_from_where_type_checkers_see_them():
    seen = imported_at_the_top(MODULES["curvscope"])
    late = curvscope._MODULE_OF | {name: "curvscope" for name in seen if name in curvscope._PACKAGES}
    assert late == seen
    for name, module in seen.items():
        assert getattr(curvscope, name) is getattr(importlib.import_module(module), name)
    assert set(curvscope.__all__) < set(dir(curvscope))


@pytest.mark.parametrize("place", PURE)
def test_pure_rooms_see_nothing_else(place):
    paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    for path in paths:
        assert imported_rooms(path) - {place.split("/")[0]} <= PURE[place], path


def test_the_test_sees_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from curvscope.solvers import eigsh\nimport curvscope.report._style\n")
    assert imported_rooms(bad) == {"solvers", "report"}


def test_public_names_exist_and_are_documented():
    for name in curvscope.__all__:
        assert getattr(curvscope, name).__doc__, name


def test_the_page_of_the_site_names_the_same_floors():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    rooms = page[page.index("## The rooms") : page.index("## One call")]
    assert [set(found.split(", ")) for found in re.findall(r"^\*\*([a-z, ]+)\.\*\* ", rooms, re.MULTILINE)] == FLOORS
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert packages | {"errors"} == set().union(*FLOORS)


def test_the_page_of_the_site_names_modules_that_exist():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    for place in re.findall(r"`((?:operators|solvers|measurement|store|certificates|subspaces|cli|testing)(?:\.\w+)+)`", page):
        package, _, name = f"curvscope.{place}".rpartition(".")
        assert f"curvscope.{place}" in MODULES or hasattr(importlib.import_module(package), name), place

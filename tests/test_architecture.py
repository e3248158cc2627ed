"""Imports run downwards only, as the architecture says."""

import ast
import re
from pathlib import Path

import pytest

import curvscope

ROOT = Path(curvscope.__file__).parent

# Each room may import the rooms before it, and itself; rooms on one floor do not know each other.
# certify lies below the solvers, which tell "converged" by its pure functions; sketches above tall: applying a test matrix
# to a tall one, panel by panel, is the one thing that only it knows how to do cheaply; store below both that keep files.
FLOORS = [
    {"errors", "arguments"},
    {"store"},
    {"tall", "execution"},
    {"sketches"},
    {"operators"},
    {"certify"},
    {"solvers"},
    {"estimators"},
    {"subspaces"},
    {"problems"},
    {"training"},
    {"report"},
    {"studies"},
    {"cli"},
    {"testing"},
]
# The two that must stay pure: what they may see beside themselves.
PURE = {
    "solvers/recovery.py": {"errors", "tall"},
    "certify": {"errors", "arguments", "tall"},
    "store": {"errors"},
    "tall": {"errors", "store"},
    "sketches": {"errors", "tall"},
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


def floor_of(room):
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"{room} has no floor: add it to FLOORS where the architecture puts it")


FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    room = path.relative_to(ROOT).parts[0]
    for other in imported_rooms(path) - {room}:
        if room == "cli" and other == "__version__":
            continue
        assert floor_of(other) < floor_of(room), f"{path.relative_to(ROOT)} imports {other}, which is not below {room}"


@pytest.mark.parametrize("place", PURE)
def test_pure_rooms_see_nothing_else(place):
    paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    for path in paths:
        assert imported_rooms(path) - {place.split("/")[0]} <= PURE[place], path


def test_the_test_sees_an_upward_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from curvscope.solvers import eigsh\nimport curvscope.report.style\n")
    assert imported_rooms(bad) == {"solvers", "report"}


def test_public_names_exist_and_are_documented():
    for name in curvscope.__all__:
        assert getattr(curvscope, name).__doc__, name


def test_the_page_of_the_site_names_the_same_floors():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    rooms = page[page.index("## The rooms") : page.index("## One call")]
    assert [set(found.split(", ")) for found in re.findall(r"^\*\*([a-z, ]+)\.\*\* ", rooms, re.MULTILINE)] == FLOORS
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert packages | {"errors", "arguments"} == set().union(*FLOORS)


def test_the_page_of_the_site_names_modules_that_exist():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    for place in re.findall(r"`((?:operators|solvers|execution|certify)(?:\.\w+)+)`", page):
        path = ROOT.joinpath(*place.split("."))
        assert path.with_suffix(".py").exists() or path.is_dir() or callable(getattr(curvscope, path.name, None)), place

"""The site's reference has a page for every public name, with a heading, a summary and a place in the navigation."""

import importlib.util
import warnings
from pathlib import Path

import pytest
from mkdocs.config import load_config
from mkdocs.structure.files import get_files

import curvscope as cs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs" / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names(pages):
    lists = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return {page.name: pages.names_in(page.read_text()) for page in lists}


def test_every_public_name_has_one_page(names):
    every = [name for listed in names.values() for name in listed]
    written = [name.written for name in every]
    assert len({name.page.lower() for name in every}) == len(every)  # file systems may take plan and Plan for one
    public = {name for name in cs.__all__ if callable(getattr(cs, name))}
    assert public <= set(written)
    assert {f"masks.{name}" for name in cs.masks.__all__ if callable(getattr(cs.masks, name))} <= set(written)
    assert [name.written for name in every if not name.summary.endswith((".", ":"))] == []
    assert not any(part.startswith("_") for name in every for part in name.place.split(".")[1:])


def test_pages_and_tables_of_the_site(pages, names):
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.plugins._current_plugin = "reference_pages"  # as while the site is built
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = pages.on_files(get_files(config), config)
    page = files.src_uris["reference/solvers/eigsh.md"].content_string
    assert page.endswith("::: curvscope.eigsh\n    options:\n      heading_level: 1\n")
    table = files.src_uris["reference/solvers.md"].content_string
    assert ":::" not in table
    assert "| [`eigsh`](solvers/eigsh.md) | " in table
    (reference,) = (entry["Reference"] for entry in config.nav if "Reference" in entry)
    shown = {next(iter(group)): [page for entry in next(iter(group.values())) for page in [entry]] for group in reference}
    assert shown["Solvers"][0] == "reference/solvers.md"  # the list itself, then its names
    assert {"eigsh": "reference/solvers/eigsh.md"} in shown["Solvers"]
    assert sum(len(listed) - 1 for listed in shown.values()) == sum(map(len, names.values()))

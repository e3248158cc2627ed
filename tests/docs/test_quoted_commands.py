"""Command lines that pages quote are those that there are: whole ones parse, in passing at least their options exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from curvscope.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
FENCED = re.compile(r"^ *```(?:\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
WHOLE = re.compile(r"(?:^|&& |\$ +)(?:\S*/)?curvscope (.*)")
SCRIPT = re.compile(r"(?:^|python )(?:benchmarks/)?(\w+\.py)\b(.*)", re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
GROUP = typer.main.get_command(app)


def whole():
    """(page, command line) of the fenced blocks."""
    for page in PAGES:
        for block in FENCED.findall(page.read_text()):
            yield from ((page.name, found[1]) for line in block.splitlines() if (found := WHOLE.search(line.strip())))


def spans():
    """(page, code) of what is quoted in running text."""
    for page in PAGES:
        yield from ((page.name, code) for code in INLINE.findall(FENCED.sub("", page.read_text())))


def options(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}


def test_commands_were_found():
    assert len(list(whole())) >= 30


@pytest.mark.parametrize(("page", "line"), sorted(set(whole())))
def test_a_whole_command_line_parses(page, line):
    words = shlex.split(line, comments=True)
    GROUP.commands[words[0]].make_context(words[0], words[1:])  # raises UsageError; runs nothing


@pytest.mark.parametrize(("page", "code"), sorted({found for found in spans() if found[1].startswith("curvscope ")}))
def test_a_command_in_passing_has_these_options(page, code):
    name = code.split()[1]
    if name == "..." or name.startswith("-"):
        known = set().union(options(GROUP), *map(options, GROUP.commands.values()))
    else:
        known = options(GROUP.commands[name])
    assert set(OPTION.findall(code)) <= known


@pytest.mark.parametrize(("page", "code"), sorted({found for found in spans() if SCRIPT.search(found[1])}))
def test_a_benchmark_has_these_parts_and_options(page, code):
    name, arguments = SCRIPT.search(code).groups()
    script = ROOT / "benchmarks" / name
    if not script.exists():  # a file of the reader's, or one of the package
        assert "benchmarks/" not in code
        return
    source = script.read_text()
    parts = re.match(r"(?: *[a-z]\w*\b)*", arguments)[0].split()
    for word in (*parts, *OPTION.findall(arguments)):
        assert f'"{word}"' in source, f"{page}: {name} has no {word}"


def test_paths_of_ours_exist():
    quoted = {path for _, code in spans() for path in re.findall(r"\b(?:tests|benchmarks|examples)/[\w./-]+", code)}
    assert len(quoted) > 10
    assert [path for path in sorted(quoted) if not (ROOT / path).exists()] == []

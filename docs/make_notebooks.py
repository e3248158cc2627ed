"""Write the examples as notebooks: ``python docs/make_notebooks.py`` writes ``examples/notebooks`` from the scripts."""

import ast
import re
from pathlib import Path

import nbformat

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = EXAMPLES / "notebooks"

FOLDER = re.compile(r"""^folder = Path\(sys\.argv\[1\] if len\(sys\.argv\) > 1 else (".*?")\)$""", re.MULTILINE)
"""Where a script writes; a notebook writes to the same folder here."""

SHOWN = re.compile(r"^figure\.savefig\(.*\)\n?", re.MULTILINE)
"""A notebook shows its figures."""


def scripts() -> list[Path]:
    """Those that are notebooks, too: several processes import or start the script itself, which a notebook has not."""
    return sorted(path for path in EXAMPLES.glob("*.py") if path.stem not in ("dask_cluster", "several_processes"))


def notebook(script: Path) -> nbformat.NotebookNode:
    """The cells of a script: its docstring, then each paragraph of its code."""
    source = script.read_text(encoding="utf-8")
    tree = ast.parse(source)
    title = script.stem.replace("_", " ").capitalize()
    shows = f"# {title}\n\n{ast.get_docstring(tree)}\n\nThe same as a script: `python examples/{script.name}`."
    cells = [nbformat.v4.new_markdown_cell(shows)]
    code = [_without_command_line(paragraph) for paragraph in _paragraphs(source, tree)]
    if sum(paragraph.count("folder") for paragraph in code) == 1:  # it was for the figure alone
        code = [re.sub(r"^folder = .*\n?", "", paragraph, flags=re.MULTILINE) for paragraph in code]
    cells += [nbformat.v4.new_code_cell(stripped) for paragraph in code if (stripped := paragraph.strip("\n"))]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # random ones would change with every writing
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def text(script: Path) -> str:
    """The notebook of a script as its file holds it."""
    return nbformat.writes(notebook(script)) + "\n"


def _paragraphs(source: str, tree: ast.Module) -> list[str]:
    """Runs of statements without an empty line between them; the imports together."""
    lines, paragraphs, end, imported = source.splitlines(), [], -1, False
    for statement in tree.body[1:]:
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]) - 1
        while first and lines[first - 1].startswith("#"):
            first -= 1
        imports = isinstance(statement, ast.Import | ast.ImportFrom)
        if paragraphs and (first <= end or (imports and imported)):
            paragraphs[-1] += lines[end : statement.end_lineno]
        else:
            paragraphs.append(lines[first : statement.end_lineno])
        end, imported = statement.end_lineno, imports
    return ["\n".join(paragraph) for paragraph in paragraphs]


def _without_command_line(code: str) -> str:
    code = FOLDER.sub(r"folder = Path(\1)", SHOWN.sub("", code)).replace('Path(".")', "Path()")
    return re.sub(r"^import sys\n", "", code, flags=re.MULTILINE)


if __name__ == "__main__":
    NOTEBOOKS.mkdir(exist_ok=True)
    for path in scripts():
        (NOTEBOOKS / f"{path.stem}.ipynb").write_text(text(path), encoding="utf-8")

"""The examples as pages of the site: what each shows, its figure, what it prints, its source; and a gallery of all of them.

Figures and output are those that ``python docs/render_examples.py`` kept in ``docs/examples``: building the site runs nothing.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

EXAMPLES = Path(__file__).parents[1] / "examples"
RENDERED = Path(__file__).parent / "examples"
PROPER = {
    "Cnn": "CNN",
    "cnn": "CNN",
    "laplace": "Laplace",
    "Hugging face": "Hugging Face",
    "dask": "Dask",
    "Lora": "LoRA",
    "Lightning": "Lightning",
    "tensorboard": "TensorBoard",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and list them in the navigation."""
    scripts = sorted(EXAMPLES.glob("*.py"))
    pages = {"index": _gallery(scripts), **{script.stem: _page(script) for script in scripts}}
    for name, text in pages.items():
        files.append(File.generated(config, f"examples/{name}.md", content=text))
    listed = ["examples/index.md", *({_title(script): f"examples/{script.stem}.md"} for script in scripts)]
    config.nav = [{"Examples": listed} if "Examples" in entry else entry for entry in config.nav]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """In the repository a page links to the script; on the site to its page."""
    up = "../" * page.file.src_uri.count("/")
    link = re.compile(rf"\]\({re.escape(up)}\.\./examples(?:/(\w+)\.py)?\)")
    return link.sub(lambda found: f"]({up}examples/{found[1] or 'index'}.md)", markdown)


def _title(script: Path) -> str:
    title = script.stem.replace("_", " ").capitalize()
    for plain, proper in PROPER.items():
        title = re.sub(rf"\b{plain}\b", proper, title)
    return title


def _page(script: Path) -> str:
    source = script.read_text()
    shows, code = ast.get_docstring(ast.parse(source)) or "", source.split('"""', 2)[2].lstrip()
    parts = [f"# {_title(script)}", shows]
    if (RENDERED / f"{script.stem}.png").exists():
        parts.append(f"![{_title(script)}]({script.stem}.png)")
    notebook = EXAMPLES / "notebooks" / f"{script.stem}.ipynb"
    parts += [
        f"```\n{(RENDERED / f'{script.stem}.txt').read_text()}```",
        "## Source",
        f"`python examples/{script.name}`"
        + (f", or the notebook `{notebook.relative_to(EXAMPLES.parent)}`" * notebook.exists()),
    ]
    return "\n\n".join([*parts, f"```python\n{code}```\n"])


def _gallery(scripts: list[Path]) -> str:
    parts = [
        "# Examples",
        "Each is a script of its own that runs in under a minute on two cores; the tests run all of them. What they printed "
        "and drew is shown as it came.",
    ]
    for script in scripts:
        shows = (ast.get_docstring(ast.parse(script.read_text())) or "").split("\n\n")[0]
        parts += [f"## [{_title(script)}]({script.stem}.md)", shows]
        if (RENDERED / f"{script.stem}.png").exists():
            parts.append(f"[![{_title(script)}]({script.stem}.png){{ width=420 }}]({script.stem}.md)")
    return "\n\n".join(parts) + "\n"

"""What the site needs beside the pages: benchmark tables as pages, and docstrings in Markdown."""

import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?\.?([^`]+)`")
INLINE_MATH = re.compile(r":math:`([^`]+)`")
MATH = re.compile(r"^( *)\.\. math::[ ]*(.*\n(?:\1 +\S.*\n|\n)*)", re.MULTILINE)
ADJOINT = re.compile(r"(?<=[\w)])\*(?=[\s),|'.;]|$)", re.MULTILINE)
LABEL = re.compile(r"^(Cost|Limits|Source):", re.MULTILINE)
DOCTEST = re.compile(r"^>>> [\s\S]*\Z", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the tables of the benchmarks, and the change log."""
    for path in [*RESULTS.glob("*.md"), *RESULTS.glob("*.png"), *RESULTS.glob("*.json*")]:
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(RESULTS.parents[1] / "CHANGELOG.md")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """In the repository tables and changes lie elsewhere: pages link to them there. What only tests read goes."""
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"^<!-- for the test.*?^-->\n", "", markdown, flags=re.MULTILINE | re.DOTALL)
    markdown = markdown.replace(f"]({up}../benchmarks/results/", f"]({up}benchmarks/")
    return markdown.replace(f"]({up}../CHANGELOG.md", f"]({up}changelog.md")


class Markdown(griffe.Extension):
    """Our docstrings are Google style with roles, formulas and doctests at their ends."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Roles become code, formulas MathML, the doctest at the end a block."""
    text = ADJOINT.sub(r"\\*", text).replace(r"\\*", r"\*")
    text = MATH.sub(_displayed, LABEL.sub(r"\n**\1**:", text) + "\n")
    text = INLINE_MATH.sub(lambda found: f"<span>{convert(found[1])}</span>", text)
    text = ROLE.sub(lambda found: f"`{found[1]}`", text)
    return DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text).rstrip()


def _displayed(found: re.Match[str]) -> str:
    formulas = re.split(r"\n\s*\n", found[2].replace("&", "").strip())
    return "".join(f"{found[1]}{convert(' '.join(formula.split()), display='block')}\n\n" for formula in formulas)

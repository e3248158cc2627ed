"""Run the examples and keep what they print and draw, for the site: ``python docs/render_examples.py [NAME ...]``."""

import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
RENDERED = Path(__file__).parent / "examples"


def render(script: Path) -> None:
    """Run one script in an empty directory; its output becomes NAME.txt, its figure NAME.png."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(script), folder], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True
        )
        RENDERED.mkdir(exist_ok=True)
        (RENDERED / f"{script.stem}.txt").write_text(done.stdout, encoding="utf-8")
        for figure in Path(folder).glob("*.png"):
            (RENDERED / figure.name).write_bytes(figure.read_bytes())


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in EXAMPLES.glob("*.py")):
        render(EXAMPLES / f"{name}.py")

"""The demo, shortened: the same path with fewer steps, pairs and products."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from curvscope.cli._folders import free_folder
from curvscope.problems._mnist16 import Mnist16
from curvscope.studies._demo import DemoConfig


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(Mnist16, "defaults", replace(Mnist16.defaults, steps=(0, 3, 6)))
    monkeypatch.setattr("curvscope.studies._demo.DemoConfig", lambda: DemoConfig(k=20, max_products=60, shown=(5, 20)))


@pytest.mark.usefixtures("short")
def test_demo(curvscope, tmp_path):
    made = curvscope("demo")
    assert made.status == 0
    rows = [line.split() for line in made.output.splitlines() if "Krylov" in line or "SEIGH" in line]
    assert [(row[0], row[1], row[2]) for row in rows] == [(s, m, "60") for s in "036" for m in ("Krylov", "SEIGH")]
    assert "Report: curvscope-demo/report.html" in made.output
    numbers = json.loads((tmp_path / "curvscope-demo" / "demo.json").read_text())
    assert [step["step"] for step in numbers["steps"]] == [0, 3, 6]
    shown = float(rows[0][-1])
    assert numbers["steps"][0]["methods"]["krylov"]["overlap"]["overlap"][19] == pytest.approx(shown, abs=5e-5)

    html = (tmp_path / "curvscope-demo" / "report.html").read_text()
    assert "http" not in html
    assert "<script src" not in html
    figures = re.findall(r"<svg .*?</svg>", html, re.DOTALL)
    assert len(figures) == 3
    for figure in figures:
        assert len(ElementTree.fromstring(figure).findall(".//title")) > 20
    overlap = numbers["steps"][0]["methods"]["krylov"]["overlap"]["overlap"][0]
    assert f"k = 1\noverlap of the first k eigenvectors and the magnitude mask = {overlap:.4g}" in html

    pictures = sorted((tmp_path / "curvscope-demo" / "figures").iterdir())
    assert [picture.suffix for picture in pictures] == [".png"] * 3

    assert free_folder("curvscope-demo").name == "curvscope-demo-2"  # where the next demo would go

"""The report in a browser: it works from a file, its script runs without errors, its figures are there, its tables sort."""

import base64
import itertools
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from curvscope.report import Document, Section, Table, _plots as plots, render
from curvscope.report._inline import inline_svg
from curvscope.report._style import to_svg

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PROBE = """
<script>
  const head = document.querySelectorAll("th")[1];
  head.click(); head.click();
  const cells = [...document.querySelectorAll("tbody td:nth-child(2)")].map(cell => cell.textContent);
  const point = document.querySelector(".marks circle");
  point.dispatchEvent(new MouseEvent("click", {bubbles: true}));
  const told = document.querySelector("figcaption").textContent;
  document.querySelector("figure svg").dispatchEvent(new MouseEvent("click", {bubbles: true}));
  const enlarged = document.querySelector("dialog").open, fits = document.documentElement.scrollWidth <= innerWidth;
  document.title = JSON.stringify([cells, told, enlarged, fits]);
  window.addEventListener("error", event => { document.title = "error: " + event.message; });
</script>
"""


@pytest.fixture(scope="module")
def page():
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 2, 3])  # its first point is told by the caption
    table = Table(["name", "value"], [["a", "2.5e-3"], ["b", "-1"], ["c", "10 %"], ["d", "none"]])
    return render(Document("Title", "Summary", [Section("One", "Text", figure, "a line"), Section("Two", "Text", table=table)]))


def test_nothing_comes_from_elsewhere(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "http" not in page
    assert "@import" not in page
    assert page.index("Summary") < page.index("<section>")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_it_works_in_a_browser(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*)</title>", done.stdout)[1]
    assert title == '[["10 %","2.5e-3","-1","none"],"x = 0, y = 1",true,true]'


def drawn():
    """A figure of every kind of drawing: lines with intervals, bars, ticks along an axis, a matrix; on logarithmic axes."""
    x = np.geomspace(1, 1000, 4001)
    sheet = plots.panels([plots.Panel("a", {"noisy": plots.Line(x, 2 + np.sin(1e4 * x), x / 9, 9 * x)})], x="k", y="height")
    (axes,) = sheet.axes
    axes.bar([10, 20], [2, 0], label="bars")
    axes.plot([3.0, 5.0], [-0.03, -0.03], "|", transform=axes.get_xaxis_transform(), label="_")
    return sheet


def marks(svg):
    root = ElementTree.fromstring(svg)
    return root, [(part, part[0].text) for part in root.find(".//g[@class='marks']")]


def test_points_answer_with_what_is_drawn_there():
    root, found = marks(inline_svg(drawn(), "one", "a figure"))
    *_, width, height = map(float, root.get("viewBox").split())
    told = [text for _, text in found]
    assert "noisy\nk = 1\nheight = 1.694 (0.1111 to 9)" in told
    assert {"k = 3", "k = 5"} < set(told)
    assert sum(text.startswith("bars") for text in told) == 1
    assert 20 < len(found) <= 70
    for part, _ in found:
        assert 0 <= float(part.get("cx", part.get("x"))) <= width
        assert 0 <= float(part.get("cy", part.get("y"))) <= height
    one, other = (next(float(part.get("cx")) for part, text in found if f"k = {k}" in text.split("\n")) for k in ("1", "1,000"))
    assert (next(float(part.get("cx")) for part, text in found if text == "k = 3") - one) / (other - one) == pytest.approx(
        np.log10(3) / 3, abs=1e-3
    )


def test_cells_of_a_matrix_answer():
    matrix = np.arange(6.0).reshape(2, 3)
    sheet = Figure()
    sheet.subplots().imshow(matrix, origin="lower", extent=(0, 3, 0, 2))
    _, found = marks(inline_svg(sheet, "one", "a matrix"))
    assert [text.split(": ")[1] for _, text in found] == ["0", "1", "2", "3", "4", "5"]
    assert found[5][1] == "2.5, 1.5: 5"
    assert float(found[5][0].get("y")) < float(found[2][0].get("y"))  # the upper row


def test_figures_fit_any_width_and_follow_the_page():
    page = render(Document("T", "S", [Section(name, "x", drawn(), "what it shows") for name in ("One", "Two")]))
    opened = re.findall(r"<svg [^>]*>", page)
    assert len(opened) == 2
    assert all("viewBox" in tag and " width=" not in tag and 'aria-label="what it shows"' in tag for tag in opened)
    assert re.search(r"figure svg \{[^}]*max-width: 100%; height: auto", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)
    drawing = page[page.index("<svg ") : page.index("</svg>")]
    assert not re.search(r": #(000000|ffffff)", drawing)  # no black letters on a dark page, no white sheet
    assert page.count("<title>") < 150
    images = 2 * len(base64.b64encode(to_svg(drawn()).encode()))  # the same figures as pictures that answer nothing
    assert len(page) < 0.75 * images


def test_numbers_below_a_short_logarithmic_axis_do_not_touch():
    line = plots.Line([16, 64, 256], [0.1, 0.2, 0.3])
    sheet = plots.panels([plots.Panel(str(i), {"a": line}) for i in range(7)], x="D", y="y", columns=4)
    renderer = FigureCanvasAgg(sheet).get_renderer()
    sheet.draw(renderer)
    axis = sheet.axes[4].xaxis
    low, high = sheet.axes[4].get_xlim()
    shown = [
        tick.label1.get_window_extent(renderer)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if tick.label1.get_text() and low <= tick.get_loc() <= high
    ]
    shown.sort(key=lambda box: box.x0)
    assert len(shown) >= 3
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(shown))

"""The report in a browser: it works from a file, its script runs without errors, its figures are there, its tables sort."""

import itertools
import re
import shutil
import subprocess

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from curvscope.report import Document, Section, Table, _plots as plots, render

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PROBE = """
<script>
  const head = document.querySelectorAll("th")[1];
  head.click(); head.click();
  document.querySelector("figure img").click();
  const cells = [...document.querySelectorAll("tbody td:nth-child(2)")].map(cell => cell.textContent);
  const image = document.querySelector("figure img");
  image.decode().then(() => {
    document.title = JSON.stringify([cells, image.naturalWidth > 0, document.querySelector("dialog").open]);
  });
  window.addEventListener("error", event => { document.title = "error: " + event.message; });
</script>
"""


@pytest.fixture(scope="module")
def page():
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 2, 3])
    table = Table(["name", "value"], [["a", "2.5e-3"], ["b", "-1"], ["c", "10 %"], ["d", "none"]])
    return render(Document("Title", "Summary", [Section("One", "Text", figure, "a line"), Section("Two", "Text", table=table)]))


def test_nothing_comes_from_elsewhere(page):
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "@import" not in page
    assert page.index("Summary") < page.index("<section>")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_it_works_in_a_browser(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*)</title>", done.stdout)[1]
    assert title == '[["10 %","2.5e-3","-1","none"],true,true]'


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

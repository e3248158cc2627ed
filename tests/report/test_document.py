"""The report in a browser: it works from a file, its script runs without errors, its figures are there, its tables sort."""

import re
import shutil
import subprocess

import pytest
from matplotlib.figure import Figure

from curvscope.report.document import Document, Section, Table, render

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

import json
import re
import shutil
import subprocess

import pytest

from fed_gswgan.reporting.html_report import MOST_PICTURES, write_report
from fed_gswgan.reporting.run_folder import REPORT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
COUNT_PICTURES = """<script>window.addEventListener("load", () => {
  const shown = [...document.images].filter(image => image.complete && image.naturalWidth > 0);
  document.body.dataset.shown = `${shown.length} of ${document.images.length}`;
});</script>"""


@pytest.fixture
def run(small_run, few_steps):
    return small_run(
        epsilon=4.0, noise_stddev=0.0, evaluation_samples=40, evaluate_every=2, samples_every=1
    )


def test_a_finished_run_has_a_report_of_samples_metrics_cost_privacy_and_settings(run):
    page = (run / REPORT).read_text()
    for words in (
        "digits: gs-wgan, 4 rounds, 4 clients", "epsilon = 4 at delta",
        "real images of clients", "of the busiest user", "label agreement against rounds",
        "epsilon of the user asked most", "Samples after round 4", "most in",
        '<tr class="changed"><td>cohort-size</td><td>3</td></tr>',
        "<tr><td>adam-beta1</td><td>0.5</td></tr>",
    ):  # fmt: skip
        assert words in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing from elsewhere


def test_what_a_run_says_is_not_interpreted_and_many_pictures_are_thinned(run):
    first, *_, last = sorted((run / "samples").glob("*.png"))
    for number in range(10, 50):
        shutil.copy(first, run / "samples" / f"round-{number:06d}.png")
    summary = json.loads((run / "summary.json").read_text())
    page = write_report(run, summary | {"dataset": "<script>alert(1)</script>"}).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count('alt="Samples after round') == MOST_PICTURES
    assert "after round 1<" in page
    assert "after round 49<" in page
    assert last.exists()


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here: the report is not shown in a browser")
def test_a_browser_shows_every_picture_and_has_no_complaint(run, tmp_path):
    page = (run / REPORT).read_text()
    counting = tmp_path / "counting.html"
    counting.write_text(page.replace("</body>", COUNT_PICTURES + "</body>"))
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
         counting.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    pictures = page.count("<img ")
    assert pictures > 10
    assert f'data-shown="{pictures} of {pictures}"' in shown.stdout
    assert "CONSOLE" not in shown.stderr

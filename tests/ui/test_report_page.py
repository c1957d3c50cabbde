"""The report in a real browser: wide, narrow, light and dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.needs("chromium")

MEASURE = """<script>
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().width > 0);
  const text = document.querySelector("svg text");
  document.body.dataset.measured = JSON.stringify({
    window: innerWidth, page: document.documentElement.scrollWidth, figures: seen.length,
    narrowest: Math.min(...seen.map((svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    requests: performance.getEntriesByType("resource").length,
  });
});
</script>"""


def measured(report: Path, folder: Path, width_px: int, *, dark: bool = False) -> dict[str, Any]:
    """What the browser makes of the page at a width."""
    page = folder / "page.html"
    # A frame of the wanted width: the browser's own window cannot be narrower than some 500 px.
    inner = folder / "inner.html"
    inner.write_text(report.read_text(encoding="utf-8") + MEASURE, encoding="utf-8")
    page.write_text(
        f'<!doctype html><meta name="color-scheme" content="light dark"><iframe id="frame" src="inner.html" '
        f'style="width:{width_px}px;height:4000px;border:0"></iframe><script>'
        'addEventListener("load", () => setTimeout(() => { document.body.dataset.measured = '
        'document.getElementById("frame").contentDocument.body.dataset.measured; }, 50));</script>',
        encoding="utf-8",
    )
    chromium = shutil.which("chromium")
    assert chromium is not None
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--window-size=1400,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        page.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<body[^>]*data-measured="([^"]*)"', dom)
    assert found is not None, dom[:2000]
    document: dict[str, Any] = json.loads(found.group(1).replace("&quot;", '"'))
    return document


def luminance(colour: str) -> float:
    """Relative luminance of a CSS ``rgb(…)`` colour (WCAG 2)."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("width_px", [390, 768, 1280])
def test_the_page_fits_and_its_figures_keep_their_letters_readable(
    report: Path, tmp_path: Path, width_px: int
) -> None:
    found = measured(report, tmp_path, width_px)
    assert found["window"] == width_px
    assert found["page"] <= width_px, "nothing sticks out sideways"
    assert found["figures"] == 7, "each figure is shown once"
    assert found["narrowest"] >= 0.75, "a figure made for the width, not one that was shrunk"
    assert found["requests"] == 0


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_both_have_contrast(report: Path, tmp_path: Path, dark: bool) -> None:
    found = measured(report, tmp_path, 900, dark=dark)
    ink, paper = luminance(found["ink"]), luminance(found["paper"])
    assert (paper < 0.1) is dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 7

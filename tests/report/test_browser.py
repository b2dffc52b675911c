"""The page in a headless Chromium, where there is one: on a phone, in dark mode, and its table sorted by clicks."""

import functools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
<iframe src="report.html" style="width: 375px; height: 800px"></iframe>
<pre id="seen"></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
  const style = (selector, name) => view.getComputedStyle(page.querySelector(selector))[name];
  const seen = {
    width: root.clientWidth,
    scroll: root.scrollWidth,
    beyond: [...page.querySelectorAll("svg, h1, h2, h3, p, li, details")]
      .filter((x) => x.getBoundingClientRect().right > 375 && !x.closest(".scroll"))
      .map((x) => x.outerHTML.slice(0, 80)),
    background: style("html", "backgroundColor"),
    text: style(".panel svg text", "fill"),
    fonts: [style(".panel svg text", "fontFamily"), style("body", "fontFamily")],
    photos: [...page.querySelectorAll(".case image")].length,
    orders: [],
  };
  const table = page.querySelector("table[data-sortable]");
  const click = (column) => {
    table.querySelector(`th[data-column="${column}"] button`).click();
    const head = table.querySelector("th[aria-sort]");
    seen.orders.push([head.getAttribute("aria-sort"), Number(head.dataset.column),
      [...table.tBodies[0].rows].map((row) => row.cells[0].textContent)]);
  };
  for (const column of [1, 1, 2, 0, 0]) click(column);
  seen.buttons = table.querySelectorAll("button").length;
  seen.sorted = table.querySelectorAll("th[aria-sort]").length;
  document.getElementById("seen").textContent = JSON.stringify(seen);
  console.error("the probe ends");
};
</script>
"""


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that logs nothing."""

    def log_message(self, *args: Any) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def address(written: list[Path]) -> Iterator[str]:
    """The address of a server of the page and of the probe that has it in a frame of a phone's width."""
    folder = written[0].parent
    (folder / "probe.html").write_text(PROBE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_and_sorts_the_page(report: dict[str, Any], address: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--enable-logging=stderr", "--blink-settings=preferredColorScheme=0"]  # dark
    command += ["--virtual-time-budget=20000", "--dump-dom", f"{address}/probe.html"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout)
    assert found is not None, done.stderr
    seen = json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "favicon" not in line]
    assert len(console) == 1 and "the probe ends" in console[0]

    assert seen["width"] <= 375 and seen["scroll"] <= seen["width"] and seen["beyond"] == []
    assert seen["background"] == "rgb(21, 24, 29)" and seen["text"] == "rgb(230, 232, 236)"
    assert seen["fonts"][0] == seen["fonts"][1]
    assert seen["photos"] == 18  # three kinds of three cases each, of two detectors

    names = report["ground_truth"]["classes"]
    assert seen["orders"] == [
        ["descending", 1, by_value(report, 0, names, reverse=True)],
        ["ascending", 1, by_value(report, 0, names, reverse=False)],
        ["descending", 2, by_value(report, 1, names, reverse=True)],
        ["ascending", 0, sorted(names)],
        ["descending", 0, sorted(names, reverse=True)],
    ]
    assert seen["buttons"] == 1 + 2 * 9 and seen["sorted"] == 1


def by_value(report: dict[str, Any], detector: int, names: list[str], *, reverse: bool) -> list[str]:
    """Return the classes by the AP of a detector, those without last in both orders."""
    values = dict(zip(names, report["detectors"][detector]["per_class"]["AP"], strict=True))
    known = [name for name in names if values[name] is not None]
    return sorted(known, key=values.__getitem__, reverse=reverse) + [name for name in names if values[name] is None]

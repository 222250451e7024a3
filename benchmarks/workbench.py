"""How long the workbench takes in a real browser: `python benchmarks/workbench.py [RUN]` (a quickstart's folder).

From the click to the frame that shows it, in Debian's chromium over loopback; `make test-browser` installs both.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from pellucid.see.workbench import PAGES

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"  # in milliseconds
LIMIT = 5000  # milliseconds after which something is said not to happen
# What is done, where: page, what it is done to, how, and what shows it.
CLICKS = {
    "choose a head": ("attention", "#grid .heads button", "#square > p"),
    "choose a token": ("attention", "#looking .token", "#steps"),
    "choose a layer of the block": ("block", "#through [aria-label=Layer] button", "#through > p"),
    "switch a head": ("next-word", "#off .heads button", "#off .says"),
}
SLIDES = {
    "temperature": ("next-word", "#temperature", "#next table", ("0.5", "0.9", "1.3", "0.7")),
    "number of a vector": ("embeddings", "#number", "#sum .mono.small", ("5", "40", "90", "12")),
    "sample of the training": ("training", "#sample", "#samples", ("0", "1", "2", "3")),
    "threshold": ("classifier", "#cut", "#threshold .facts", ("5", "40", "90", "12")),
}
DO = """async ([selector, place, value, watched, limit]) => {
  const element = document.querySelectorAll(selector)[place], before = document.querySelector(watched).textContent;
  const start = performance.now(), since = () => performance.now() - start;
  if (value === null) element.click(); else { element.value = value; element.dispatchEvent(new Event("input")); }
  const same = () => document.querySelector(watched)?.textContent === before;
  while (same() && since() < limit) await new Promise((go) => setTimeout(go, 1));
  await new Promise((go) => requestAnimationFrame(() => setTimeout(go, 0)));
  return since();
}"""


@contextmanager
def served(run: Path) -> Iterator[tuple[str, float]]:
    """The address of a server of the run, and the seconds until it listened."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pellucid", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said + process.stderr.read()
        yield found[0], time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def opened(browser: Any, site: str, address: str) -> tuple[Page, float]:
    """A page in a browser that has kept nothing, and the seconds until it was drawn."""
    page: Page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    model = f"?model={address}" if address in ("classifier", "assistant") else ""
    start = time.perf_counter()
    page.goto(f"{site}/{address}{model}")
    while not page.evaluate("Number(document.body?.dataset.drawn ?? 0) > 0"):
        page.wait_for_timeout(2)
    return page, time.perf_counter() - start


def done(page: Page, selector: str, place: int, value: str | None, watched: str) -> float:
    """Milliseconds from what is done to the frame that shows it."""
    page.wait_for_timeout(150)
    took: float = page.evaluate(DO, [selector, place, value, watched, LIMIT])
    assert took < LIMIT, f"{selector} changed nothing of {watched}"
    return took


def main() -> None:
    """Print the table."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    with served(run) as (site, start), sync_playwright() as driver:
        print(f"pellucid serve listens after {start:.2f} s")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for one in PAGES:
            views = [opened(browser, site, one.address) for _ in range(5)]
            say(f"{one.title}, something to read", [page.evaluate(PAINTED) for page, _ in views])
            say(f"{one.title}, all of it drawn", [1000 * seconds for _, seconds in views])
        for name, (address, selector, watched) in CLICKS.items():
            page, _ = opened(browser, site, address)
            say(name, [done(page, selector, place, None, watched) for place in (1, 0, 1, 0, 1, 0, 1, 0)])
        for name, (address, selector, watched, values) in SLIDES.items():
            page, _ = opened(browser, site, address)
            say(name, [done(page, selector, 0, value, watched) for value in values * 2])
        browser.close()


def say(name: str, times: list[float]) -> None:
    """One line of the table."""
    print(f"{name}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms", flush=True)


if __name__ == "__main__":
    main()

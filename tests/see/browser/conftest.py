"""A real browser and a real server: Debian's chromium, driven by playwright, looks at `pellucid serve` of a quickstart.

PELLUCID_BROWSER_RUN names a quickstart's folder to look at instead of the few seconds' one of the tests, and
PELLUCID_PICTURES the folder that gets a screenshot of each page (`make pictures`). PELLUCID_BROWSER_SLOW=6 makes the
browser's processor that many times slower and each answer 0.3 s late: what only holds on a quiet machine shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest) -> Path:
    """A quickstart's folder."""
    given = os.environ.get("PELLUCID_BROWSER_RUN")
    return Path(given) if given else request.getfixturevalue("quickstart")


@pytest.fixture(scope="session")
def hostile_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose name, samples and command are full of markup and escape sequences."""
    folder = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=alert(1)>\u202e"
    shutil.copytree(base_folder, folder)
    attack = "<script>alert(1)</script><b onclick='x'>bold</b> \\u001b[31mred \\u202e"
    (folder / "samples.jsonl").write_text(f'{{"step": 3, "loss": 1.5, "text": "{attack}"}}\n')
    (folder / "metrics.jsonl").write_text('{"step": 3, "split": "train", "loss": 1.5, "tokens": 30}\n')
    (folder / "run.json").write_text('{"command": ["<script>alert(2)</script>"], "config": {}}')
    return folder


@contextmanager
def served(start: Callable[..., subprocess.Popen[str]], *folders: Path) -> Iterator[str]:
    """The address of a server of these runs."""
    process = start("serve", *folders, "--port", 0)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said + process.stderr.read()
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="session")
def site(start: Callable[..., subprocess.Popen[str]], run_folder: Path, hostile_folder: Path) -> Iterator[str]:
    """The address of a server of the quickstart and, but for the docs' pictures, the hostile model."""
    folders = [run_folder] if os.environ.get("PELLUCID_PICTURES") else [run_folder, hostile_folder]
    with served(start, *folders) as address:
        yield address


@pytest.fixture
def site_in_training(start: Callable[..., subprocess.Popen[str]], run_folder: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a server of a run that another process trains at this moment."""
    run, shape = tmp_path / "young", tmp_path / "tiny.toml"
    shape.write_text('family = "gpt2"\nd_model = 32\nn_layers = 1\nn_heads = 2\ncontext_length = 64\n')
    recipe = ("--steps", 1_000_000, "--batch-size", 2, "--checkpoint-every", 50)
    trainer = start("pretrain", "--data", run_folder / "shards", "--model", shape, "--out", run, *recipe)
    try:
        while not (run / "metrics.jsonl").is_file():
            assert trainer.poll() is None, trainer.communicate()[1]
            time.sleep(0.05)
        with served(start, run) as address:
            yield address
        assert trainer.poll() is None, "it trained all the while"
    finally:
        trainer.terminate()
        trainer.communicate(timeout=60)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; where it or playwright is not here the tests skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test-browser installs it")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Debian's chromium: make test-browser installs it as root")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


class Visit:
    """A page of the workbench in a tab of its own, and what the browser complained of or asked for."""

    def __init__(self, context: Any, site: str) -> None:
        self.site = site
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.set_default_timeout(60_000)
        if slow := os.environ.get("PELLUCID_BROWSER_SLOW"):
            tools = context.new_cdp_session(self.page)
            tools.send("Emulation.setCPUThrottlingRate", {"rate": float(slow)})
            rates = {"latency": 300, "downloadThroughput": -1, "uploadThroughput": -1}
            tools.send("Network.emulateNetworkConditions", {"offline": False, **rates})
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def open(self, address: str, **asked: str) -> Any:
        """Open a page and wait until it is drawn."""
        self.page.goto(f"{self.site}/{address}?{urlencode(asked)}" if asked else f"{self.site}/{address}")
        self.drawn()
        return self.page

    def follow(self, link: str) -> None:
        """Click on what leads to another page and wait until that one is drawn, not the one that is left."""
        with self.page.expect_navigation():
            self.page.click(link)
        self.drawn()

    def drawn(self) -> None:
        """Wait until the page has been drawn."""
        self.until("() => Number(document.body?.dataset.drawn ?? 0) > 0")

    def until(self, condition: str, given: Any = None, seconds: float = 60) -> None:
        """Wait until a function of the page says yes (playwright's own way is eval, which the policy forbids)."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition, given):
            assert time.monotonic() < end, f"still not so: {condition}"
            self.page.wait_for_timeout(20)

    def check(self) -> None:
        """No error in the console, and no request that leaves the machine."""
        assert not self.complaints
        foreign = [url for url in self.requests if not url.startswith((self.site, "data:", "blob:"))]
        assert not foreign


@pytest.fixture
def visit(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A tab of 1280 × 900 in light colours; what the browser complains of fails the test."""
    site = request.getfixturevalue(getattr(request, "param", "site"))
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light", accept_downloads=True)
    visit = Visit(context, site)
    yield visit
    visit.check()
    context.close()

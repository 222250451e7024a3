"""What the README and the docs say to type is typed here, and works."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import regex

from pellucid import options
from pellucid.cli import VERBS

ROOT = Path(__file__).parents[1]
SERVED = "http://127.0.0.1:8000"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return regex.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), regex.M | regex.S)


@contextlib.contextmanager
def served(words: list[str], home: Path, surroundings: dict[str, str]) -> Iterator[str]:
    """`pellucid serve …`, but at a free port, until the block ends; its address."""
    command = [sys.executable, "-m", *words, "--port", "0"]
    process = subprocess.Popen(command, cwd=home, env=surroundings, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        found = regex.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said + process.stderr.read()
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def home(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/quickstart in it, as after the first command of the README."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "runs").mkdir()
    (folder / "runs" / "quickstart").symlink_to(quickstart)
    return folder


# All commands in one process, which loads torch once: that each works as a process of its own is told by test_cli.py.
IN_TURN = """
import shlex, sys
from pellucid.cli import main
for line in sys.argv[1:]:
    sys.argv = shlex.split(line, comments=True)
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"{line}: exit code {ended.code}")
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works(page: Path, home: Path, surroundings: dict[str, str]) -> None:
    commands = []
    for line in (line for block in blocks(page, "sh") for line in block.splitlines()):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "make":  # make itself runs these tests; its targets must be there
            assert regex.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), regex.M), line
            continue
        assert words[0] == "pellucid", f"{page.name}: {line}"
        if words[1] == "serve":
            with served(words, home, surroundings):
                continue
        commands.append(line)
    command = [sys.executable, "-c", IN_TURN, *commands]
    done = subprocess.run(command, cwd=home, env=surroundings, input="", text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    page: Path, home: Path, surroundings: dict[str, str]
) -> None:
    block = "\n".join(blocks(page, "python"))
    with contextlib.ExitStack() as stack:
        if SERVED in block:
            words = ["pellucid", "serve", "runs/quickstart/assistant"]
            block = block.replace(SERVED, stack.enter_context(served(words, home, surroundings)))
        done = subprocess.run([sys.executable, "-c", block], cwd=home, env=surroundings, text=True, capture_output=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


OTHERS = ("nproc_per_node", "rdzv_id", "requeue")  # of torchrun and sbatch


def benchmarks_options() -> set[str]:
    sources = (file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").rglob("*.py"))
    return {name for source in sources for name in regex.findall(r'"--([a-z-]+)"', source)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_option_that_a_page_names_is_one(page: Path) -> None:
    text = regex.sub(r"^```console\n.*?^```", "", page.read_text(encoding="utf-8"), flags=regex.M | regex.S)
    known = {field.name for verb in VERBS.values() for field in fields(getattr(options, verb.settings))}
    known |= {"config", "help", *OTHERS} | {name.replace("-", "_") for name in benchmarks_options()}
    named = {name.replace("-", "_").removeprefix("no_") for name in regex.findall(r"(?<![\w-])--([a-z][a-z-]*)", text)}
    assert named - known == set()
    assert set(regex.findall(r"`pellucid ([a-z]+)", text)) - {name.split()[0] for name in VERBS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in regex.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"

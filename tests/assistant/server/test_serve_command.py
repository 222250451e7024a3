"""`pellucid serve` as a process: it says where it is, answers, ends cleanly, and refuses what would not be safe."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_it_says_where_it_is_answers_and_ends_cleanly_with_either_signal(
    start: Callable[..., subprocess.Popen[str]], base_folder: Path
) -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):
        process = start("serve", base_folder, "--port", 0, "--json")
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said + process.stderr.read()
        with urllib.request.urlopen(f"{found[0]}/healthz", timeout=20) as answer:
            assert json.load(answer) == {"status": "ok"}
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        with urllib.request.urlopen(f"{found[0]}/", timeout=20) as page:
            assert "ellucid" in page.read().decode()
        process.send_signal(ending)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert json.loads(out) == {"url": found[0], "models": ["base"]}
        assert err == "stopped.\n"


def test_what_would_not_be_safe_or_cannot_be_is_refused(call: Any, base_folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "key"
    short.write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in [
            ([base_folder, "--host", "0.0.0.0"], "no --api-key-file; expected both"),
            ([base_folder, "--api-key-file", short], "a short or strange key"),
            ([base_folder, "--api-key-file", tmp_path / "none"], "none"),
            ([base_folder, "--port", port], "--port 0 finds one"),
            ([base_folder, "--port", 123456], "a free port"),
            ([base_folder, base_folder], "twice"),
            ([tmp_path / "nowhere"], "no such folder"),
            ([], "no runs"),
        ]:
            done = call("serve", *arguments)
            assert done.returncode == 2, done
            assert said in done.stderr, done.stderr
            assert "Traceback" not in done.stderr


@pytest.mark.parametrize("folders", [["a/assistant", "b/assistant"], ["a/assistant", "b/classifier"]])
def test_runs_are_known_by_the_shortest_names_that_differ(tmp_path: Path, folders: list[str]) -> None:
    from pellucid.opened import Runs

    runs = Runs([tmp_path / folder for folder in folders])
    assert [tmp_path / folder for folder in folders] == list(runs.values())
    expected = ["a-assistant", "b-assistant"] if folders[1] == "b/assistant" else ["assistant", "classifier"]
    assert list(runs) == expected

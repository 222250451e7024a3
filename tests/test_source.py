"""What no source file of the package may hold, for some machine or some file from elsewhere would pay for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "pellucid").rglob("*.py"))

FORBIDDEN = {
    "opens or writes pickles": (
        r"torch\.(load|save)\(|allow_pickle=True|np\.load\((?!.*allow_pickle=False)|\.read_pickle\(|\.to_pickle\(",
        ["torch.load(file)", "np.load(path)", "np.load(path, allow_pickle=True)"],
        ["np.load(path, mmap_mode='r', allow_pickle=False)", "GPT.load(path)"],
    ),
    "runs what comes with a model": (r"trust_remote_code=True|weights_only=False", ["trust_remote_code=True"], []),
    "is imported before anybody knows whether it is Windows": (
        r"^(import|from) (fcntl|grp|pty|pwd|readline|resource|termios|tty)\b",
        ["import fcntl", "from resource import getrusage"],
        ["    import fcntl", "import ttyish"],
    ),
    "is on no Windows": (
        r"\bos\.(fork|forkpty|getuid|geteuid|killpg|mkfifo|setsid|uname)\b|\bsignal\.SIG(ALRM|CHLD|HUP|KILL|STOP|USR\d)\b",
        ["os.fork()", "signal.SIGKILL"],
        ["signal.SIGTERM", "pos.forked"],
    ),
    "starts processes in a way that only Unix has": (
        r"get_context\(\s*['\"]fork|set_start_method\(\s*['\"]fork|get_context\(\)",
        ["get_context('fork')", "get_context()"],
        ['get_context("spawn")'],
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_source_file_holds_what(what: str) -> None:
    pattern, bad, good = FORBIDDEN[what]
    found = re.compile(pattern, re.MULTILINE)
    assert all(map(found.search, bad)) and not any(map(found.search, good)), "the pattern itself"
    assert len(SOURCES) > 100
    assert [file.name for file in SOURCES if found.search(file.read_text(encoding="utf-8"))] == []

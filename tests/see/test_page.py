"""The page of one sentence is one file that loads nothing and shows foreign text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.see.html import WEB, duration, number, percent, visible
from pellucid.see.page import SCRIPTS, room, write_see
from pellucid.see.trace import trace
from pellucid.text.bpe import BPETokenizer

ATTACK = "</script><script>alert(1)</script> <!-- & <b onclick='x'>"


@pytest.fixture
def page(model: GPT, tokenizer: BPETokenizer, tmp_path: Path) -> str:
    write_see(model, tokenizer, ATTACK, tmp_path / "see.html", title=f"Run {ATTACK}")
    return (tmp_path / "see.html").read_text(encoding="utf-8")


def embedded(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, object] = json.loads(found.group(1))
    return data


def test_the_page_holds_the_trace_of_the_text(page: str, model: GPT, tokenizer: BPETokenizer) -> None:
    data = embedded(page)
    assert data["text"] == ATTACK
    picture = trace(model, tokenizer, ATTACK, max_tokens=room(model.config))
    torch.testing.assert_close(torch.tensor(data["attention"]), picture.attention(), atol=1e-6, rtol=0)


def test_hostile_text_never_becomes_markup(page: str) -> None:
    assert page.count("<script") == 2, "the data and the page's own script"
    assert page.count("</script") == 2
    assert "<b onclick" not in page
    assert "<!--" not in page


def test_the_policy_allows_the_pages_own_script_alone(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    code = page.rsplit('<script type="module">', 1)[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.group(1)
    assert policy.group(1).startswith("default-src 'none'")


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    assert not re.search(r"https?://|@import|url\(|<link|\ssrc=|\bfetch\(|innerHTML", page)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_write_no_markup_from_data(name: str) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", (WEB / name).read_text(encoding="utf-8")
    )


def test_a_long_text_is_cut_to_what_a_page_can_hold(model: GPT, tokenizer: BPETokenizer, tmp_path: Path) -> None:
    write_see(model, tokenizer, "lamp " * 500, tmp_path / "see.html", title="long")
    assert "are shown." in (tmp_path / "see.html").read_text(encoding="utf-8")
    large = ModelConfig(d_model=1600, n_layers=48, n_heads=25)
    assert room(large) ** 2 * 48 * 25 <= 400_000


def test_numbers_read_as_people_write_them() -> None:
    times = [duration(seconds).replace("\N{NO-BREAK SPACE}", " ") for seconds in (0.42, 59.6, 200, 7500)]
    assert times == ["0.4 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]
    assert percent(0.934) == "93.4\N{NO-BREAK SPACE}%"
    assert [number(1234567), percent(None), number("x")] == ["1,234,567", "–", "–"]
    assert visible(" a\n\x1b") == "·a⏎\\x1b"

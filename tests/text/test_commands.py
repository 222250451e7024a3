"""`pellucid tokenizer train` and `encode`: what they say of what they made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid.text.bpe import BPETokenizer


@pytest.mark.parametrize(("kind", "size", "share"), [("word", 5, 0.25), ("word", 99, 0.0), ("bpe", 256, 0.0)])
def test_a_vocabulary_that_lacks_much_of_its_own_text_is_said_to(
    call: Any, tmp_path: Path, kind: str, size: int, share: float
) -> None:
    (tmp_path / "a.txt").write_text("a b c d e f g h ")  # of eight words before a space each, four are kept
    given = ("tokenizer", "train", tmp_path / "a.txt", "--kind", kind, "--vocab-size", size, "--out", tmp_path / "t")
    found = json.loads(call(*given, "--json").stdout)
    assert found["unknown_share"] == share
    said = ", 25.0% of them unknown: a larger --vocab-size knows more."
    assert (said in call(*given).stdout) == bool(share)


def test_a_split_without_a_document_has_no_line(call: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"The {i}th fox."}) + "\n" for i in range(40)))
    BPETokenizer.train(["The fox"], 256).save(tmp_path / "t")
    done = call("encode", tmp_path / "a.jsonl", "--tokenizer", tmp_path / "t", "--out", tmp_path / "s", "--val", 0)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[1:-1]] == ["train", "test"]

"""The order of the embedded corpus: dialogues alone, then fewer and fewer, and nothing lost."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from pellucid.text.tinyworld import documents
from pellucid.text.tinyworld.files import ALONE, write_documents


def test_dialogues_come_first_and_then_fewer_and_no_document_is_lost(tmp_path: Path) -> None:
    made = list(islice(documents(0), 2000))
    write_documents(tmp_path / "documents.jsonl", made, 0)
    written = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(record["text"] for record in written) == sorted(document.text for document in made)
    kinds = [record["kind"] for record in written]
    assert set(kinds[: int(0.8 * ALONE * len(kinds))]) == {"dialogue"}
    middle, end = (
        kinds[int(a * len(kinds)) : int(b * len(kinds))].count("dialogue") for a, b in ((0.2, 0.4), (0.8, 1))
    )
    assert 0 < end < middle

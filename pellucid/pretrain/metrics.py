"""What a run writes down while it goes: metrics.jsonl and samples.jsonl, an object a line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from pellucid.runtime import write_text


class MetricsLog:
    """metrics.jsonl and samples.jsonl of a run; lines past `step` (a later, lost try) are dropped."""

    def __init__(self, out: Path, step: int) -> None:
        self.metrics, self.samples = out / "metrics.jsonl", out / "samples.jsonl"
        for path in (self.metrics, self.samples):
            kept = [line for line in read_lines(path) if line["step"] <= step] if step else []
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Append one line of metrics."""
        self._append(self.metrics, record)

    def write_sample(self, record: dict[str, Any]) -> None:
        """Append one line with a sampled text."""
        self._append(self.samples, record)

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a jsonl file; a line that a crash cut short is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]

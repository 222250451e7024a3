"""What `pellucid doctor` found in a data file: counted, summed up, and said in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pellucid.runtime import printable

SHOWN = 10  # examples of each fault
FEWEST = 3  # examples of a class: one to train on, one to validate and one to test with


@dataclass
class Findings:
    """A count, and the first few that were counted."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """One more; the first few are kept to be shown."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(example)


def spread(values: Sequence[int]) -> dict[str, int]:
    """Smallest, median, 95th percentile, largest and sum; nothing where there are no values."""
    if not len(values):
        return {}
    low, median, high, top = np.quantile(values, [0, 0.5, 0.95, 1], method="inverted_cdf").tolist()
    return {"min": int(low), "median": int(median), "p95": int(high), "max": int(top), "total": sum(values)}


def to_mend(found: dict[str, Any]) -> list[str]:
    """What is to be done, in words."""
    mend = []
    if found["bad"]["count"]:
        mend.append(f"mend or remove what is bad ({found['bad']['count']:,})")
    if found["empty"]["count"]:
        mend.append(f"remove what is empty ({found['empty']['count']:,})")
    if found["duplicates"]["count"]:
        mend.append(f"remove the duplicates ({found['duplicates']['count']:,})")
    if found.get("longer_than_context") and ("labels" in found or "instructions" in found):  # other text is cut anyway
        mend.append(f"shorten or divide what is longer than the context ({found['longer_than_context']:,})")
    if unanswered := found.get("instructions", {}).get("without_answer", {}).get("count"):
        mend.append(f"fill in the missing answers ({unanswered:,})")
    if "labels" in found and len(found["labels"]) < 2:
        mend.append("add a second class")
    rare = [label for label, count in found.get("labels", {}).items() if label and count < FEWEST]
    if rare:
        mend.append(f"add examples of labels with fewer than {FEWEST} ({len(rare):,}), or is that another column?")
    if unlabelled := found.get("labels", {}).get(""):
        mend.append(f"fill in the missing labels ({unlabelled:,})")
    if leaked := sum(found["leaks"][kind]["count"] for kind in ("exact", "near")) if "leaks" in found else 0:
        mend.append(f"remove what is in {found['leaks']['against']}, too ({leaked:,})")
    return mend


def as_text(found: dict[str, Any], context_length: int) -> str:
    """The report as people read it."""
    rows: list[tuple[str, str]] = [("found", found["found"]), ("encoding", found["encoding"])]
    rows += _rows("bad", found["bad"])
    rows += [("documents", f"{found['documents']:,}"), *_rows("empty", found["empty"])]
    for unit in ("characters", "tokens"):
        if numbers := found.get(unit):
            shown = (f"{name} {numbers[name]:,}" for name in ("min", "median", "p95", "max", "total"))
            rows.append((unit, ", ".join(shown)))
    if "longer_than_context" in found:
        rows.append(("too long", f"{found['longer_than_context']:,} of more than {context_length:,} tokens"))
    rows += _rows("duplicates", found["duplicates"])
    if labels := found.get("labels"):
        shown = (f"{name or '(none)'} {count:,}" for name, count in list(labels.items())[:20])
        rows.append(("labels", ", ".join(shown) + (f" and {len(labels) - 20:,} more" if len(labels) > 20 else "")))
    if about := found.get("instructions"):
        rows += [("instructions", f"{about['records']:,}"), *_rows("no answer", about["without_answer"])]
    if about := found.get("leaks"):
        rows += [("against", about["against"]), *_rows("the same", about["exact"]), *_rows("alike", about["near"])]
    here = f"{found['file']}, "  # where all is in one file, its name need not be said again
    lines = [f"  {name:<13}{line.replace(here, '')}" for name, text in rows for name, line in _hanging(name, text)]
    mend = "to mend: " + "; ".join(found["mend"]) if found["mend"] else "nothing to mend"
    return printable("\n".join([found["file"], *lines, mend]))


def _rows(name: str, about: dict[str, Any]) -> list[tuple[str, str]]:
    more = about["count"] - len(about["first"])
    examples = [*about["first"], f"... and {more:,} more"] if more else about["first"]
    return [(name, "\n".join([f"{about['count']:,}", *(f"  {example}" for example in examples)]))]


def _hanging(name: str, text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        yield name, line
        name = ""

"""Counts the distinct pieces of texts as they come, in memory that does not grow with the text.

Distinct words never stop coming: when there are too many, the rarest are forgotten, which is said.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from pellucid.runtime import inform, progress_bar

MOST_PIECES = 1 << 20  # distinct ones
MOST_CHARACTERS = 1 << 26  # of these together
PART = 1 << 22  # characters of a text that are counted before looking whether there are too many
QUIET_SECONDS = 2.0  # work that ends sooner shows no progress bar
REFRESH_SECONDS = 0.1


@contextlib.contextmanager
def late_progress(doing: str) -> Iterator[Callable[[str], None]]:
    """Within the block, a bar for work of unknown length: it shows how far it was last told to be, where that is long.

    It may be told as often as there are texts: it looks up only now and then.
    """
    began = looked = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task(doing, total=None, note="", visible=False)

        def tell(note: str) -> None:
            nonlocal looked
            if (now := time.monotonic()) - looked >= REFRESH_SECONDS:
                looked = now
                bar.update(task, visible=now - began > QUIET_SECONDS, note=note)

        yield tell


def count_pieces(texts: Iterable[str], split: Callable[[str], Iterable[str]]) -> Counter[str]:
    """The pieces into which `split` cuts the texts, each with how often it occurs (since it was last forgotten)."""
    counts: Counter[str] = Counter()
    read, looked, dropped = 0, 0, 0
    with late_progress("reading text for the tokenizer") as tell:
        for text in texts:
            counts.update(split(text))
            read += len(text)
            if len(counts) > MOST_PIECES or read - looked > PART:
                looked = read
                dropped += drop_rare(counts)
            tell(f"{len(counts):,} distinct pieces")
    if dropped:
        inform(f"{dropped:,} rare pieces were left out to keep memory bounded: the common ones decide the vocabulary.")
    return counts


def drop_rare(counts: Counter[str]) -> int:
    """Where there are too many, forget the rarest until half of the room is free; how many occurrences are lost."""
    before = counts.total()
    rarest = 1
    if len(counts) <= MOST_PIECES and sum(map(len, counts)) <= MOST_CHARACTERS:
        return 0
    while len(counts) * 2 > MOST_PIECES or sum(map(len, counts)) * 2 > MOST_CHARACTERS:
        for piece in [piece for piece, count in counts.items() if count <= rarest]:
            del counts[piece]
        rarest *= 2
    return before - counts.total()

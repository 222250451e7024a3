"""From tokens to text that is certain: no half characters, and nothing that may turn out to be a stop string.

Stop strings are looked for in the text, not in the tokens, so one may span tokens or begin in the midst of one. The
string that is whole first ends the text, wherever the tokens happen to be cut.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pellucid.runtime import ConfigError, problem
from pellucid.text.tokenizer import Tokenizer


class Writer:
    """The text of one row as it grows. `ended` says why it did: "stop token", "stop string", "max tokens", or not yet.

    `ids` are the tokens it was made of, those of a stop string included, a stop token not.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), stop_tokens: Collection[int] = ()) -> None:
        if "" in stop:
            raise ConfigError(problem("stop", "an empty text", "one that can be found", "Leave it out for none."))
        self.stop, self.stop_tokens = tuple(stop), frozenset(stop_tokens)
        self.ids: list[int] = []
        self.ended = ""
        self._stream = tokenizer.stream()
        self._pieces: list[str] = []
        self._held = ""  # certain characters that may be the beginning of a stop string

    @property
    def text(self) -> str:
        """What was given out so far."""
        return "".join(self._pieces)

    def push(self, token: int) -> str:
        """The text that became certain with this token (often a word, sometimes nothing yet)."""
        if self.ended:
            return ""
        if token in self.stop_tokens:
            return self._end("stop token")
        self.ids.append(token)
        return self._give_out(self._stream.push(token))

    def finish(self) -> str:
        """No more tokens come: what was held back."""
        return "" if self.ended else self._end("max tokens")

    def _end(self, why: str) -> str:
        rest = self._give_out(self._stream.flush())
        if not self.ended:
            self.ended = why
            self._pieces.append(self._held)
            rest += self._held
        return rest

    def _give_out(self, new: str) -> str:
        text = self._held + new
        at = first_stop(text, self.stop)
        if at is not None:
            self.ended, self._held = "stop string", ""
            self._pieces.append(text[:at])
            return text[:at]
        certain = len(text) - possible_stop(text, self.stop)
        self._held = text[certain:]
        self._pieces.append(text[:certain])
        return text[:certain]


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the stop string begins that is whole first (the longest, where several end there); None without any."""
    found = [(at + len(one), at) for one in stop if (at := text.find(one)) >= 0]
    return min(found)[1] if found else None


def possible_stop(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = max((len(one) - 1 for one in stop), default=0)
    sizes = range(min(longest, len(text)), 0, -1)
    return next((size for size in sizes if any(one.startswith(text[-size:]) for one in stop)), 0)

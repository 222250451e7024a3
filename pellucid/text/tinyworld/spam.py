"""Text messages, spam and not, that no single word gives away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pellucid.text.tinyworld import words
from pellucid.text.tinyworld.dice import Dice, split_of
from pellucid.text.tinyworld.spam_shapes import (
    FRAMES,
    HAM,
    LINK_ENDS,
    MIRRORED,
    MONEY,
    PRIZES,
    SHOPS,
    SLANG,
    SPAM,
)
from pellucid.text.tinyworld.stories import slots_of

HELD_OUT: Final = 0.1
# Share of messages from mirrored pairs: the higher, the less word counts can tell.
MIRRORED_SHARE: Final = 0.35


@dataclass(frozen=True)
class Message:
    """A text message with its label ("spam" or "ham") and the split of its content."""

    text: str
    label: str
    split: str


_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"[a-z]+")


def _money(dice: Dice) -> str:
    return dice.choose(MONEY).format(dice.choose((5, 10, 20, 25, 50, 75, 100)) * dice.number(1, 20))


def _phone(dice: Dice) -> str:
    return f"0{dice.number(100, 999)} {dice.number(1000, 9999)}"


def _link(dice: Dice) -> str:
    return f"{dice.choose(SHOPS)}{dice.choose(('-', '.', ''))}{dice.choose(PRIZES)}.{dice.choose(LINK_ENDS)}"


_FILLERS: Final[dict[str, Callable[[Dice], str]]] = {
    "amt": _money,
    "num": _phone,
    "link": _link,
    "prize": lambda dice: dice.choose(PRIZES),
    "shop": lambda dice: dice.choose(SHOPS),
    "day": lambda dice: dice.choose(words.DAYS),
    "relative": lambda dice: dice.choose(words.RELATIVES),
    "code": lambda dice: str(dice.number(1000, 9999)),
    "name": lambda dice: dice.choose(words.NAMES),
}


def _short(text: str) -> str:
    return _WORD.sub(lambda match: SLANG.get(match.group(), match.group()), text)


def _message(dice: Dice) -> Message:
    label = dice.choose(("spam", "ham"))
    if dice.chance(MIRRORED_SHARE):
        number = dice.number(0, len(MIRRORED) - 1)
        group, shape = f"mirrored {number}", MIRRORED[number][0 if label == "spam" else 1]
    else:
        shapes = SPAM if label == "spam" else HAM
        number = dice.number(0, len(shapes) - 1)
        group, shape = f"{label} {number}", shapes[number]
    shown = _short(shape) if dice.chance(0.3) else shape
    shown = dice.choose(FRAMES).replace("{}", shown)
    fillers = {slot: _FILLERS[slot](dice) for slot in sorted(slots_of(shown))}
    # A message and its mirror image with the same fillers lie in the same split; digits do not make content.
    key = "|".join([group, *(_DIGITS.sub("", fillers[slot]).lower() for slot in fillers)])
    return Message(shown.format_map(fillers), label, split_of(key, HELD_OUT))


def messages(seed: int) -> Iterator[Message]:
    """Endless messages, half of them spam; of all contents, 10 % are val and 10 % are test."""
    dice = Dice(f"messages {seed}")
    while True:
        yield _message(dice)

"""Questions about stories, in the order in which a small model comes to answer them: instruction tuning begins so.

A story names a thing before its owner ("gave the red ball to Paul"), so nothing at the thing can know the name behind
it. Asked about such stories from the start, a small model learns to guess among the things, and stays there. Where
one person has a name and the others are called by their work, no thing looks likelier than another, but the name tells
them apart: the model learns to take what stands in front of it. Then come more names, of which one is asked, and at
last the stories of the instructions. What was tried, and what it gave, is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pellucid.text.tinyworld import words
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.tasks import Instruction, Made, instruction_of, story_where, story_who


@dataclass(frozen=True)
class Lesson:
    """The stories that ask what somebody has: people with a name, at most; others, at least and at most."""

    named: int
    others: tuple[int, int]


LESSONS: Final = {
    "one-name": Lesson(1, (3, 4)),
    "names-and-others": Lesson(3, (1, 2)),
    "names": Lesson(3, (0, 0)),
}


def lessons(seed: int, name: str) -> Iterator[Instruction]:
    """Endless questions of a lesson, where, who and what in turn by chance; the family is the lesson's name."""
    dice = Dice(f"lesson {name} {seed}")
    while True:
        asked = dice.choose(("story_where", "story_who", "story_what"))
        made = _what(dice, LESSONS[name]) if asked == "story_what" else _as_ever(dice, asked)
        yield instruction_of(dice, made, name)


def _as_ever(dice: Dice, asked: str) -> Made:
    return story_where(dice) if asked == "story_where" else story_who(dice, asked)


def _what(dice: Dice, lesson: Lesson) -> Made:
    named = dice.sample(words.CAST, dice.number(1, lesson.named))
    others = [f"the {job}" for job in dice.sample(words.JOBS, dice.number(*lesson.others))]
    people = dice.sample([*named, *others], len(named) + len(others))
    return story_who(dice, "story_what", people)

"""Facts of the small world in statement form, a few to a document.

Every fact of `knowledge` is stated here, also those whose question is held out: what the assistant can answer about a
held-out word, it can have learnt from statements only. Sums of held-out pairs are never stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from pellucid.text.tinyworld import knowledge, words
from pellucid.text.tinyworld.arithmetic import HELD_OUT, spoken, train_pairs
from pellucid.text.tinyworld.dice import Dice, ranked_splits
from pellucid.text.tinyworld.stories import fill, sentence

# How the two people of a document come together.
LESSONS: Final = (
    "{a} sat {adv} beside {b} at school.",
    "{a} and {b} {adv} read a {adj} book about {subject}.",
    "on {day}, {mood} {a} learned with {b}, the {adj} {job}.",
    "{a} wrote a {adj} letter from {town} to {b}.",
    "in {month}, {a} and {b} had a {mood} teacher from {town}.",
    "{a} was {mood} and {adv} asked {b} about the world.",
    "{b} the {adj} {job} was the teacher of {a}.",
    "{a} and {b} {adv} talked at the {place}.",
)
# Who says so: in front of a statement. The statement itself keeps its words, and so its tokens.
SOURCES: Final = (
    "we {adv} remember that ", "every {job} knows that ", "the {adj} teacher said that ",
    "a book about {subject} says that ", "{name} {adv} said that ", "{name} felt {mood} to hear that ",
    "{name} {adv} told {name2} that ",
    "{name} {played} and said that ", "{name} {adv} wrote down that ", "the {adj} {job} told {name} that ",
    "on {day} {name} {adv} noticed that ", "a {mood} {job} said that ", "people in {town} say that ",
    "{name} {handled} the {thing} and said that ", "some {adj} {counted} show that ", "{name} heard a {job} say that ",
)  # fmt: skip
SOURCE_SHARE: Final = 0.85  # of the statements
LARGEST_START: Final = 20  # of a run
STEPS: Final = (1, 2, 5, 10)


@cache
def opposites() -> dict[str, str]:
    """Each word of a pair and the other one."""
    return dict(knowledge.OPPOSITES) | {y: x for x, y in knowledge.OPPOSITES}


@cache
def kinds() -> dict[str, str]:
    """Each member and its category."""
    return {word: kind for kind, members in knowledge.KINDS.items() for word in members}


@cache
def colours() -> dict[str, str]:
    """Each thing and its usual colour."""
    return {word: colour for colour, members in knowledge.COLOUR_OF.items() for word in members}


@cache
def letters() -> dict[str, list[str]]:
    """The words that are sorted, by first letter."""
    found: dict[str, list[str]] = {}
    for word in knowledge.SORTED:
        found.setdefault(word[0], []).append(word)
    return found


def table(family: str) -> dict[str, str]:
    """What is asked and its answer, for the families of instructions that ask for a word."""
    tables: dict[str, Callable[[], dict[str, str]]] = {
        "opposite": opposites,
        "plural": lambda: knowledge.PLURALS,
        "past_tense": lambda: knowledge.PASTS,
        "category": kinds,
        "colour": colours,
        "spelling": lambda: {word: spelled(word) for word in knowledge.SPELLED},
    }
    return tables[family]()


FAMILIES: Final = ("opposite", "plural", "past_tense", "category", "colour", "spelling")


def word_split(family: str, word: str) -> str:
    """The split of the question about `word`; both words of a pair of opposites lie in the same one."""
    return _splits(family)[_key(family, word)]


def _key(family: str, word: str) -> str:
    if family == "opposite":
        word = "/".join(sorted((word, opposites()[word])))
    return f"{family}|{word}"


@cache
def _splits(family: str) -> dict[str, str]:
    return ranked_splits((_key(family, word) for word in table(family)), HELD_OUT)


@cache
def _items(family: str) -> tuple[tuple[str, str], ...]:
    return tuple(table(family).items())


# The statement of each relation. The instructions answer in the same words.
OPPOSITE: Final = "the opposite of {} is {}."
PLURAL: Final = "the plural of {} is {}."
PAST: Final = "the past tense of {} is {}."
KIND: Final = "a {} is a kind of {}."
COLOUR: Final = "the usual colour of a {} is {}."
SPELLING: Final = "the word {} is spelled {}."
FIRST_LETTER: Final = "the first letter of {} is {}."
SUM: Final = "{} plus {} is {}."
HAS: Final = "{} has the {}."
WITH: Final = "the {} is with {}."
CAN_SAY: Final = "I can say {}."
GOES_ON: Final = "the pattern goes on {} {} {}."  # the last one shown, said again, and the next two


def spelled(word: str) -> str:
    """`c-a-t` for `cat`."""
    return "-".join(word)


def _relation(shape: str, family: str) -> Callable[[Dice], str]:
    return lambda dice: shape.format(*dice.choose(_items(family)))


def _sum(dice: Dice) -> str:
    x, y = dice.choose(train_pairs())
    shape = dice.choose((SUM, "the sum of {} and {} is {}.", "{} and {} make {}."), (6, 1, 1))
    return shape.format(spoken(x), spoken(y), spoken(x + y))


def ordered_words(dice: Dice, count: int) -> list[str]:
    """`count` words with different first letters, in the order of the alphabet."""
    return [dice.choose(letters()[letter]) for letter in dice.subset(sorted(letters()), count)]


def _alphabet(dice: Dice) -> str:
    if dice.chance(0.5):
        return "the word {} comes before {} in the alphabet.".format(*ordered_words(dice, 2))
    return "the words in order are {}, {}, {} and {}.".format(*ordered_words(dice, 4))


@cache
def short_words() -> tuple[str, ...]:
    """The words that are asked for their letters."""
    return tuple(sorted({*knowledge.SPELLED, *knowledge.SORTED}))


@cache
def all_words() -> tuple[str, ...]:
    """Every word that any family of instructions asks about."""
    return tuple(sorted({word for family in FAMILIES for word in table(family)} | set(knowledge.SORTED)))


def _first_letter(dice: Dice) -> str:
    word = dice.choose(all_words())
    return FIRST_LETTER.format(word, word[0])


def run_of(start: int, step: int, count: int) -> list[str]:
    """The first `count` numbers of a run."""
    return [str(start + step * i) for i in range(count)]


def _run(dice: Dice) -> str:
    start, step, count = dice.number(1, LARGEST_START), dice.choose(STEPS), dice.number(5, 7)
    return f"counting by {step} goes {' '.join(run_of(start, step, count))}."


def _row(dice: Dice) -> str:
    period = dice.sample(words.COUNTED, dice.number(2, 4))
    shown = len(period) + dice.number(1, len(period))
    row = [period[i % len(period)] for i in range(shown + 2)]
    return f"after {' '.join(row[:shown])} {GOES_ON.format(*row[-3:])}"


STATEMENTS: Final[dict[str, Callable[[Dice], str]]] = {
    "opposite": _relation(OPPOSITE, "opposite"),
    "plural": _relation(PLURAL, "plural"),
    "past_tense": _relation(PAST, "past_tense"),
    "category": _relation(KIND, "category"),
    "colour": _relation(COLOUR, "colour"),
    "spelling": _relation(SPELLING, "spelling"),
    "sum": _sum,
    "alphabet": _alphabet,
    "first letter": _first_letter,
    "run": _run,
    "row": _row,
}
# How often each kind of statement stands in a document: more where there is more to learn.
WEIGHTS: Final = (1.5, 1.0, 1.0, 1.3, 1.0, 1.3, 1.7, 0.7, 1.2, 0.5, 1.0)


def statement(dice: Dice) -> str:
    """One true statement, in lower case, with a full stop."""
    return STATEMENTS[dice.choose(tuple(STATEMENTS), WEIGHTS)](dice)


def source(dice: Dice, people: Sequence[str]) -> str:
    """A phrase that says who knows: one of two people, both, or somebody else."""
    shape = dice.choose(SOURCES)
    known = {}
    if "{name" in shape:
        name = dice.choose(people)
        known = {"name": name, "name2": people[1 - people.index(name)]}
    return fill(dice, shape, known)


def fact_sheet(dice: Dice) -> tuple[str, str]:
    """A few facts and their content key: what is stated, whoever says it and in whatever order."""
    people = dice.sample(words.CAST, 2)
    told = [sentence(fill(dice, dice.choose(LESSONS), {"a": people[0], "b": people[1]}))]
    stated = set()
    for _ in range(dice.number(4, 7)):
        front = source(dice, people) if dice.chance(SOURCE_SHARE) else ""
        what = statement(dice)
        stated.add(what)
        told.append(sentence(front + what))
    return " ".join(told), "facts|" + "|".join(sorted(stated))

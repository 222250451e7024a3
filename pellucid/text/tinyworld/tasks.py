"""Instructions whose answers a program can check, in seventeen families.

An answer is a full sentence in the words of the documents' statements, so that what was learnt there is of use here,
and the answer of a similar question is nearly always wrong. What is asked decides the split, not how it is worded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from pellucid.text.tinyworld import facts, knowledge, words
from pellucid.text.tinyworld.arithmetic import HELD_OUT, pairs, spoken, sum_split
from pellucid.text.tinyworld.dice import Dice, split_of
from pellucid.text.tinyworld.phrasings import GREETINGS, PHRASINGS, SMALL_TALK
from pellucid.text.tinyworld.scenes import WEATHER, filled, hold_scene, put_scene
from pellucid.text.tinyworld.stories import sentence


@dataclass(frozen=True)
class Instruction:
    """A task, what it is about (or nothing), the right answer, its family, and the split of its content."""

    instruction: str
    input: str
    output: str
    family: str
    split: str


# Phrasing family, slots, input, output, split.
Made = tuple[str, dict[str, str], str, str, str]


def _with_detail(dice: Dice, told: list[str]) -> str:
    """The sentences, with one or two others in front or behind that do not matter: three to five in all."""
    for _ in range(dice.number(max(1, 3 - len(told)), 2)):
        detail = filled(dice, dice.choose(WEATHER), {})
        told = [*told, detail] if dice.chance(0.5) else [detail, *told]
    return " ".join(told)


def _people(dice: Dice) -> list[str]:
    return dice.sample(words.CAST, dice.number(1, 3))


def story_where(dice: Dice) -> Made:
    """Where one of the things is that people left somewhere."""
    scene = put_scene(dice, _people(dice))
    thing, at = dice.choose(tuple(zip(scene.things, scene.places, strict=True)))
    split = split_of(f"where|{thing}|{at}", HELD_OUT)
    return "story_where", {"t": thing}, _with_detail(dice, scene.told), f"The {thing} is {at}.", split


def story_who(dice: Dice, asked: str, people: list[str] | None = None) -> Made:
    """Who has one of the things, or what one of the people has who are called by their names."""
    scene = hold_scene(dice, people or _people(dice))
    held = zip(scene.people, scene.things, strict=True)
    who, thing = dice.choose(tuple(pair for pair in held if pair[0] in words.CAST))
    answer = facts.HAS.format(who, thing) if asked == "story_what" else sentence(facts.WITH.format(thing, who))
    split = split_of(f"has|{who}|{thing}", HELD_OUT)
    others = any(person not in words.CAST for person in scene.people)  # who are detail enough
    told = " ".join(scene.told) if others else _with_detail(dice, scene.told)
    return asked, {"t": thing, "who": who}, told, answer, split


def _word(dice: Dice, family: str, statement: str) -> Made:
    word, answer = dice.choose(tuple(facts.table(family).items()))
    return family, {"x": word}, "", sentence(statement.format(word, answer)), facts.word_split(family, word)


def _sum(dice: Dice) -> Made:
    x, y = dice.choose(pairs())
    answer = sentence(facts.SUM.format(spoken(x), spoken(y), spoken(x + y)))
    return "sum", {"x": spoken(x), "y": spoken(y)}, "", answer, sum_split(x, y)


def _first_letter(dice: Dice) -> Made:
    word = dice.choose(facts.short_words())
    answer = sentence(facts.FIRST_LETTER.format(word, word[0]))
    return "first_letter", {"x": word}, "", answer, split_of(f"letter|{word}", HELD_OUT)


def _repeating(dice: Dice) -> Made:
    said = dice.sample(facts.all_words(), dice.number(1, 4))
    answer = facts.CAN_SAY.format(" ".join(said))
    return "repeating", {"x": " ".join(said)}, "", answer, split_of("repeat|" + "|".join(sorted(said)), HELD_OUT)


def _counting(dice: Dice) -> Made:
    listed = dice.sample(knowledge.SORTED, dice.number(2, 8))
    split = split_of("counting|" + "|".join(sorted(listed)), HELD_OUT)
    return "counting", {}, ", ".join(listed), f"There are {len(listed)} words in the list.", split


def _sorting(dice: Dice) -> Made:
    right = facts.ordered_words(dice, 3)
    shown = dice.sample(right, 3)
    split = split_of("sorting|" + "|".join(right), HELD_OUT)
    return "sorting", {}, ", ".join(shown), "The words in order are {}, {} and {}.".format(*right), split


def _rewriting(dice: Dice) -> Made:
    kind = dice.choose(("replace", "negative", "past"))
    who, new = dice.sample(words.CAST, 2)
    if kind == "past":
        now, then = dice.choose(tuple(knowledge.HABITS.items()))
        rest = f"{dice.choose(words.ADVERBS)} in {dice.choose(words.SCENES)}."
        before, after, content = f"{who} {now} {rest}", f"{who} {then} {rest}", now
    elif kind == "negative":
        verb, town = dice.choose(("is", "was", "will be", "can be")), dice.choose(words.SCENES)
        content = dice.choose(words.MOODS)
        first, _, more = verb.partition(" ")
        rest = f"{more} {content} in {town}.".lstrip()
        before, after = f"{who} {first} {rest}", f"{who} {first} not {rest}"
    else:
        content = dice.choose(words.OWNED)
        rest = f"{dice.choose(('has', 'likes', 'wants', 'needs'))} the {dice.choose(words.PAINTS)} {content}."
        before, after = f"{who} {rest}", f"{new} {rest}"
    return kind, {"who": who, "new": new}, before, after, split_of(f"{kind}|{who}|{content}", HELD_OUT)


def _pattern(dice: Dice) -> Made:
    if dice.chance(0.1):
        start, step = dice.number(1, facts.LARGEST_START), dice.choose(facts.STEPS)
        items = facts.run_of(start, step, 7)
        split = _run_split(start, step)
    else:
        chosen = dice.sample(words.COUNTED, dice.number(2, 3))
        shown = 2 * len(chosen) + dice.number(0, len(chosen) - 1)
        items = [chosen[i % len(chosen)] for i in range(shown + 2)]
        split = split_of("pattern|" + "|".join(sorted(chosen)), HELD_OUT)
    answer = sentence(facts.GOES_ON.format(*items[-3:]))
    return "pattern", {}, " ".join(items[:-2]), answer, split


def _run_split(start: int, step: int) -> str:
    return split_of(f"run|{start}|{step}", HELD_OUT)


def _small_talk(dice: Dice) -> Made:
    said, answer = SMALL_TALK[dice.choose(tuple(SMALL_TALK))]
    phrase, (front, back), name = dice.choose(said), dice.choose(GREETINGS), dice.choose(words.NAMES)
    phrasing = front.format(name=name) + phrase
    return phrasing, {}, "", back.format(name=name) + answer, split_of(f"talk|{phrasing}", HELD_OUT)


_MAKERS: Final[dict[str, Callable[[Dice], Made]]] = {
    "story_where": story_where,
    "story_who": partial(story_who, asked="story_who"),
    "story_what": partial(story_who, asked="story_what"),
    "opposite": partial(_word, family="opposite", statement=facts.OPPOSITE),
    "plural": partial(_word, family="plural", statement=facts.PLURAL),
    "past_tense": partial(_word, family="past_tense", statement=facts.PAST),
    "repeating": _repeating,
    "counting": _counting,
    "sum": _sum,
    "sorting": _sorting,
    "first_letter": _first_letter,
    "spelling": partial(_word, family="spelling", statement=facts.SPELLING),
    "category": partial(_word, family="category", statement=facts.KIND),
    "colour": partial(_word, family="colour", statement=facts.COLOUR),
    "rewriting": _rewriting,
    "pattern": _pattern,
    "small_talk": _small_talk,
}

FAMILIES: Final[tuple[str, ...]] = tuple(_MAKERS)


def instructions(seed: int) -> Iterator[Instruction]:
    """Endless instructions, each family as often as another; the same seed gives the same ones.

    Of all contents, 10 % are val and 10 % are test: the words, number pairs, word sets and people with their things and
    places that are asked about, however the question is worded.
    """
    dice = Dice(f"instructions {seed}")
    while True:
        family = dice.choose(FAMILIES)
        yield instruction_of(dice, _MAKERS[family](dice), family)


def instruction_of(dice: Dice, made: Made, family: str) -> Instruction:
    """What was made, in one of its wordings."""
    wording, slots, input_, output, split = made
    text = dice.choose(PHRASINGS[wording]).format_map(slots) if wording in PHRASINGS else wording
    return Instruction(sentence(text), input_, output, family, split)


def is_right(example: Instruction, answer: str) -> bool:
    """Whether `answer` solves `example`: its output, but for space around it; a sum may be turned around."""
    given = " ".join(answer.split())
    if given == example.output:
        return True
    if example.family == "sum":
        x, rest = example.output.split(" plus ")
        y, total = rest.rstrip(".").split(" is ")
        return given == sentence(facts.SUM.format(y, x.lower(), total))
    return False

"""Short talks about what the speakers see and know.

Questions here use only the train part of what the instructions ask, so no held-out word is ever asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from pellucid.text.tinyworld import knowledge, words
from pellucid.text.tinyworld.arithmetic import train_pairs
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.facts import COLOUR, KIND, OPPOSITE, PAST, PLURAL, SUM, table, word_split
from pellucid.text.tinyworld.scenes import filled, hold_scene, put_scene
from pellucid.text.tinyworld.stories import sentence

ASKED: Final = ("{} asked", "{} wanted to know", "{} turned around and asked", "{} looked up and asked")
ANSWERED: Final = ("{} answered", "{} said", "{} replied", "{} knew it", "{} smiled and said", "{} thought and said")

SCENES: Final = (
    "{a} and {b} were {mood}.",
    "{a} met {b} in {town}.",
    "on {day}, {a} talked with {b}.",
    "{a} was {adv} at work when {b} came.",
    "{a} and {b} {went} through {town}.",
    "{a} visited {b}, the {adj} {job}.",
    "{b} the {job} {played} beside {a}.",
    "it was {weather} in {town} when {a} saw {b}.",
)
CHATS: Final = (
    ("what do you like to eat?", "I like {food} and {food2}, but I do not like {food3}."),
    ("how do you feel today?", "I feel {mood} and a little {mood2}."),
    ("what did you see?", "I saw a {adj} {animal} and a {adj2} {animal2}."),
    ("what do you want to be?", "I want to be a {adj} {job} or a {job2}."),
    ("where do you come from?", "I come from {town}, but my {relative} lives in {town2}."),
    ("what did you hear?", "I heard a {noise} and then a {adj} {noise2}."),
    ("what is the weather like?", "it is {weather} and {weather2} today."),
    ("what did you buy?", "I bought a {colour} {thing} and a {adj} {thing2}."),
    ("when is your birthday?", "my birthday is in {month}, on a {day}."),
    ("what do you read about?", "I read about {subject} and {subject2}."),
    ("what hurts?", "my {part} hurts, and my {part2} is {adj}."),
    ("who lives next door?", "a {adj} {job} and a {mood} {job2}."),
    ("what do you collect?", "I collect {counted} and {adj} {counted2}."),
    ("how do you spend the {time}?", "I go to {town} with my {relative}, the {job}."),
    ("what is in your bag?", "there is a {adj} {thing}, a {colour} {thing2} and some {food}."),
    ("why are you {mood}?", "because the {adj} {animal} {handled} my {thing}."),
)
HABITS: Final = "every {day} {name} {now} {adv}, and last {day2} {name} {then} {adv2}."


@cache
def _askable(family: str) -> tuple[tuple[str, str], ...]:
    return tuple((x, y) for x, y in table(family).items() if word_split(family, x) == "train")


# Family → question and answer; the answer is the statement of the facts.
ASKABLE: Final = {
    "opposite": ("what is the opposite of {}?", OPPOSITE),
    "plural": ("what is the plural of {}?", PLURAL),
    "past_tense": ("what is the past tense of {}?", PAST),
    "category": ("what is a {}?", KIND),
    "colour": ("what is the usual colour of a {}?", COLOUR),
}


def _line(dice: Dice, shapes: tuple[str, ...], name: str, said: str) -> str:
    return f'{dice.choose(shapes).format(name)}, "{sentence(said)}"'


def _where(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    people = [a, b, *_third(dice, a, b)]
    scene = put_scene(dice, people)
    asked = dice.number(0, len(people) - 1)
    thing, at = scene.things[asked], scene.places[asked]
    return [
        *scene.told,
        _line(dice, ASKED, a, f"where is the {thing}?"),
        _line(dice, ANSWERED, b, f"the {thing} is {at}."),
    ], "|".join(scene.things)


def _who(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    people = [a, b, *_third(dice, a, b)]
    scene = hold_scene(dice, people)
    asked = dice.number(0, len(people) - 1)
    name, thing = people[asked], scene.things[asked]
    question = dice.choose((f"who has the {thing}?", f"what does {name} have?"))
    return [
        *scene.told,
        _line(dice, ASKED, a, question),
        _line(dice, ANSWERED, b, f"{name} has the {thing}."),
    ], "|".join(scene.things)


def _third(dice: Dice, a: str, b: str) -> list[str]:
    if dice.chance(0.5):
        return []
    return [dice.choose([name for name in words.CAST if name not in (a, b)])]


def _knowledge(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    told, keys = [], []
    for asker, knower in ((a, b), (b, a)):
        if dice.chance(0.25):
            x, y = dice.choose(train_pairs())
            question, answer = f"what is {x} plus {y}?", SUM.format(x, y, x + y)
        else:
            family = dice.choose(tuple(ASKABLE))
            x_word, y_word = dice.choose(_askable(family))
            shape, statement = ASKABLE[family]
            question, answer = shape.format(x_word), statement.format(x_word, y_word)
        told.append(_line(dice, ASKED, asker, question))
        told.append(_line(dice, ANSWERED, knower, answer))
        keys.append(answer)
    return told, "|".join(keys)


def _chat(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    told = []
    topics = dice.sample(range(len(CHATS)), 2)
    for (asker, speaker), topic in zip(((a, b), (b, a)), topics, strict=True):
        question, answer = CHATS[topic]
        told.append(_line(dice, ASKED, asker, filled(dice, question, {})))
        told.append(_line(dice, ANSWERED, speaker, filled(dice, answer, {})))
    return told, f"{topics[0]}|{topics[1]}"


def _habits(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    told, keys = [], []
    for name in (a, b):
        now, then = dice.choose(tuple(knowledge.HABITS.items()))
        told.append(filled(dice, HABITS, {"name": name, "now": now, "then": then}))
        keys.append(now)
    question, answer = dice.choose(CHATS)
    told.append(_line(dice, ASKED, a, filled(dice, question, {})))
    told.append(_line(dice, ANSWERED, b, filled(dice, answer, {})))
    return told, "|".join(keys)


TALKS: Final[dict[str, Callable[[Dice, str, str], tuple[list[str], str]]]] = {
    "where": _where,
    "who": _who,
    "knowledge": _knowledge,
    "chat": _chat,
    "habits": _habits,
}
# The talks that teach to look something up come more often.
TALK_WEIGHTS: Final = (3, 3, 4, 1, 1)


def dialogue(dice: Dice) -> tuple[str, str]:
    """One talk and its content key: what it is about and between whom."""
    a, b = dice.sample(words.CAST, 2)
    talk = dice.choose(tuple(TALKS), TALK_WEIGHTS)
    scene = filled(dice, dice.choose(SCENES), {"a": a, "b": b})
    told, about = TALKS[talk](dice, a, b)
    return " ".join([scene, *told]), f"{talk}|{a}|{b}|{about}"

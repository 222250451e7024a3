"""Short talks about what the speakers see and know.

Questions here use only the train part of what the instructions ask, so no held-out word is ever asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from pellucid.text.tinyworld import knowledge, words
from pellucid.text.tinyworld.arithmetic import spoken, train_pairs
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.facts import (
    CAN_SAY,
    COLOUR,
    FIRST_LETTER,
    HAS,
    KIND,
    OPPOSITE,
    PAST,
    PLURAL,
    SUM,
    WITH,
    all_words,
    table,
    word_split,
)
from pellucid.text.tinyworld.scenes import filled, hold_scene, put_scene
from pellucid.text.tinyworld.stories import sentence

# Who speaks, and how. What is said follows.
ASKED: Final = (
    "{who} {adv} asked",
    "{who} felt {mood} and asked",
    "{who} {adv} wanted to know",
    "{who} {handled} the {thing} and asked",
    "{who} {played} and asked",
)
ANSWERED: Final = (
    "{who} {adv} answered",
    "{who} {adv} replied",
    "{who} {played} and said",
    "{who} was {mood} and said",
    "{who} {adv} knew it",
)

SCENES: Final = (
    "{a} and {b} were {mood} and {mood2}.",
    "{a} {adv} met {b} at the {place}.",
    "on {day}, {a} {adv} talked with {b}.",
    "{a} was {adv} at work when {b}, the {adj} {job}, came.",
    "{a} and {b} {adv} {went} past the {place}.",
    "{a} visited {b}, the {adj} {job} from {town}.",
    "{b} the {job} {adv} {played} beside {a}.",
    "it was {weather} at the {place} when {a} {adv} saw {b}.",
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
FOUND: Final = (
    "{who} {went} {at} and found the {t}.",
    "{who} {adv} found the {t} {at}.",
    "{who} {adv} looked {at}, and there was the {t}.",
    "so {mood} {who} got the {t} that was {at}.",
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
    return f'{filled(dice, dice.choose(shapes), {"who": name})}, "{sentence(said)}"'


def _where(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    people = [a, b, *_third(dice, a, b)]
    scene = put_scene(dice, people)
    told = list(scene.told)
    for asker, knower, asked in _questions(dice, a, b, len(people)):
        thing, at = scene.things[asked], scene.places[asked]
        told.append(_line(dice, ASKED, asker, f"where is the {thing}?"))
        told.append(_line(dice, ANSWERED, knower, f"the {thing} is {at}."))
        told.append(filled(dice, dice.choose(FOUND), {"who": asker, "t": thing, "at": at}))
    return told, "|".join(scene.things)


def _who(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    people = [a, b, *_third(dice, a, b)]
    scene = hold_scene(dice, people)
    told = list(scene.told)
    for asker, knower, asked in _questions(dice, a, b, len(people)):
        name, thing = people[asked], scene.things[asked]
        asked_who = (f"who has the {thing}?", WITH.format(thing, name))
        question, answer = dice.choose((asked_who, (f"what does {name} have?", HAS.format(name, thing))))
        told.append(_line(dice, ASKED, asker, question))
        told.append(_line(dice, ANSWERED, knower, answer))
    return told, "|".join(scene.things)


def _questions(dice: Dice, a: str, b: str, things: int) -> list[tuple[str, str, int]]:
    """Who asks whom about which thing: two questions, back and forth."""
    return [(x, y, asked) for (x, y), asked in zip(((a, b), (b, a)), dice.sample(range(things), 2), strict=True)]


def _third(dice: Dice, a: str, b: str) -> list[str]:
    if dice.chance(0.5):
        return []
    return [dice.choose([name for name in words.CAST if name not in (a, b)])]


def _knowledge(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    told, keys = [], []
    for asker, knower in ((a, b), (b, a)):
        family = dice.choose((*ASKABLE, "sum", "first letter", "word"), (*(1 for _ in ASKABLE), 1, 4, 4))
        if family == "sum":
            pair = dice.choose(train_pairs())
            x, y, total = (spoken(number) for number in (*pair, sum(pair)))
            question, answer = f"what is {x} plus {y}?", SUM.format(x, y, total)
        elif family == "first letter":
            word = dice.choose(all_words())
            question, answer = f"what is the first letter of {word}?", FIRST_LETTER.format(word, word[0])
        elif family == "word":  # any word: who answers has to say again what was asked
            word = dice.choose(all_words())
            question, answer = f"do you know the word {word}?", f"I know the word {word}."
        else:
            x_word, y_word = dice.choose(_askable(family))
            shape, statement = ASKABLE[family]
            question, answer = shape.format(x_word), statement.format(x_word, y_word)
        told.append(_line(dice, ASKED, asker, question))
        told.append(_line(dice, ANSWERED, knower, answer))
        keys.append(answer)
    return told, "|".join(keys)


def _echo(dice: Dice, a: str, b: str) -> tuple[list[str], str]:
    """A game of saying after each other: any words, so that to copy is learnt of all words and not only of names."""
    told, keys = [], []
    for asker, speaker in ((a, b), (b, a)):
        said = " ".join(dice.sample(all_words(), dice.number(3, 6)))
        told.append(_line(dice, ASKED, asker, f"can you say {said}?"))
        told.append(_line(dice, ANSWERED, speaker, CAN_SAY.format(said)))
        keys.append(said)
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
    "echo": _echo,
    "chat": _chat,
    "habits": _habits,
}
# The talks that teach to look something up come more often.
TALK_WEIGHTS: Final = (5, 3, 5, 1, 1, 1)


def dialogue(dice: Dice) -> tuple[str, str]:
    """One talk and its content key: what it is about and between whom."""
    a, b = dice.sample(words.CAST, 2)
    talk = dice.choose(tuple(TALKS), TALK_WEIGHTS)
    scene = filled(dice, dice.choose(SCENES), {"a": a, "b": b})
    told, about = TALKS[talk](dice, a, b)
    return " ".join([scene, *told]), f"{talk}|{a}|{b}|{about}"

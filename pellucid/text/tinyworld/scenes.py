"""Two or three people with their things: what dialogues and instructions ask about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pellucid.text.tinyworld import words
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.stories import FREE, sentence, slots_of

PUT: Final = (
    "{who} put the {t} {at}.",
    "{who} {adv} left the {t} {at}.",
    "{who} hid the {t} {at}.",
    "{who} {went} away, and the {t} was {at}.",
    "{who} carried the {t} and laid it down {at}.",
    "{who} dropped the {t} {at}.",
    "{who} used the {t} and forgot it {at}.",
    "because {who} was {mood}, the {t} stayed {at}.",
)
HOLD: Final = (
    "{who} has the {t}.",
    "{who} {adv} took the {t}.",
    "{who} holds the {t} in one hand.",
    "{who} got the {t} from a {job}.",
    "{who} picked up the {t}.",
    "{who} bought the {t} from a {adj} {job}.",
    "{who} found the {t} in {town}.",
    "a {job} gave the {t} to {who}.",
)
WEATHER: Final = (
    "it was a {weather} {time} in {town}.",
    "the {sky} was {adj} on that {day}.",
    "somewhere a {animal} {played} {adv}.",
    "there was a {noise} from the {spot}.",
)


@dataclass(frozen=True)
class Scene:
    """Who, with what, where (as "in the garden"), and the sentences that say so."""

    people: list[str]
    things: list[str]
    places: list[str]
    told: list[str]


def filled(dice: Dice, shape: str, known: dict[str, str]) -> str:
    """`shape` as a sentence, with its slots from `known`, or else drawn."""
    slots = dict(known)
    for slot in slots_of(shape):
        if slot not in slots:
            slots[slot] = dice.choose(FREE[slot.rstrip("23")])
    return sentence(shape.format_map(slots))


def draw_things(dice: Dice, count: int) -> list[str]:
    """Different things, each with a colour."""
    return [f"{dice.choose(words.PAINTS)} {thing}" for thing in dice.sample(words.OWNED, count)]


def put_scene(dice: Dice, people: list[str]) -> Scene:
    """Each of `people` leaves a thing at a place of its own."""
    things = draw_things(dice, len(people))
    places = [f"{in_} the {noun}" for in_, noun in dice.sample(words.SCENES, len(people))]
    told = [
        filled(dice, dice.choose(PUT), {"who": who, "t": thing, "at": at})
        for who, thing, at in zip(people, things, places, strict=True)
    ]
    return Scene(people, things, places, told)


def hold_scene(dice: Dice, people: list[str]) -> Scene:
    """Each of `people` holds a thing."""
    things = draw_things(dice, len(people))
    told = [
        filled(dice, dice.choose(HOLD), {"who": who, "t": thing}) for who, thing in zip(people, things, strict=True)
    ]
    return Scene(people, things, [], told)

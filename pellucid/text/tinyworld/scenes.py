"""Two or three people with their things: what dialogues and instructions ask about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pellucid.text.tinyworld import words
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.stories import fill, sentence

# A small model looks up best what stands right behind the thing.
PUT: Final = (
    "{who} {adv} put the {t} {at}.",
    "{who} {adv} left the {t} {at}.",
    "{who} {adv} hid the {t} {at}.",
    "{who} {went} away and left the {t} {at}.",
    "{who} {adv} dropped the {t} {at}.",
    "{who} {played} and forgot the {t} {at}.",
    "{who} was {mood} and lost the {t} {at}.",
    "a {adj} {job} helped {who} to hide the {t} {at}.",
)
HOLD: Final = (
    "somebody {adv} gave the {t} to {who}.",
    "a {adj} {job} gave the {t} to {who}.",
    "the {job} {adv} brought the {t} to {who}.",
    "a {mood} {job} sold the {t} to {who}.",
    "a {job} {played} and left the {t} with {who}.",
    "near the {place}, somebody {adv} found the {t} for {who}.",
    "the {adj} {job} {adv} handed the {t} to {who}.",
    "a {job} from {town} mended the {t} for {who}.",
)
WEATHER: Final = (
    "it was a {weather} {time} in {town}.",
    "the {sky} was {adj} on that {day}.",
    "somewhere a {animal} {played} {adv}.",
    "there was a {noise} from the {spot}.",
)


@dataclass(frozen=True)
class Scene:
    """Who, with what, where (as "in Ashford"), and the sentences that say so."""

    people: list[str]
    things: list[str]
    places: list[str]
    told: list[str]


def filled(dice: Dice, shape: str, known: dict[str, str]) -> str:
    """`shape` as a sentence, with its slots from `known`, or else drawn."""
    return sentence(fill(dice, shape, known))


def draw_things(dice: Dice, count: int) -> list[str]:
    """Different things, each with a colour: "red ball"."""
    return [f"{dice.choose(words.PAINTS)} {thing}" for thing in dice.sample(words.OWNED, count)]


def put_scene(dice: Dice, people: list[str]) -> Scene:
    """Each of `people` leaves a thing at a place of its own."""
    things = draw_things(dice, len(people))
    places = [f"in {town}" for town in dice.sample(words.SCENES, len(people))]
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

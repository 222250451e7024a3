"""Stories whose state stays true: who holds what, who is where, what broke, how many.

A plot is a list of events; it draws its people, things and places first, and each event picks one of its shapes. Every
draw is told by the text, so `Dice.nats` after a story is its exact surprisal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from string import Formatter
from typing import Final

from pellucid.text.tinyworld import words
from pellucid.text.tinyworld.arithmetic import spoken, train_pairs
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.shapes import SHAPES, TAILS

# Slots that are drawn from a list wherever they stand.
FREE: Final[dict[str, Sequence[str]]] = {
    "adj": words.ADJECTIVES,
    "adv": words.ADVERBS,
    "mood": words.MOODS,
    "went": words.WENT,
    "said": words.SAID,
    "handled": words.HANDLED,
    "played": words.PLAYED,
    "food": words.FOODS,
    "dish": words.DISHES,
    "colour": words.COLOURS,
    "thing": words.THINGS,
    "animal": words.ANIMALS,
    "job": words.JOBS,
    "town": words.FAR_TOWNS,
    "place": words.PLACES,
    "surname": words.SURNAMES,
    "weather": words.WEATHER,
    "storm": words.STORMS,
    "time": words.TIMES,
    "day": words.DAYS,
    "month": words.MONTHS,
    "relative": words.RELATIVES,
    "part": words.PARTS,
    "noise": words.NOISES,
    "spot": words.SPOTS,
    "counted": words.COUNTED,
    "subject": words.SUBJECTS,
    "sky": words.SKY,
    "n": tuple(str(number) for number in range(2, 21)),
}

# Only a shape that begins like this bears a phrase like "after that," in front of it.
OPENED: Final = ("{a}", "{b}", "{he}", "{his}", "they ", "the {", "a {")
TAIL_SHARE: Final = 0.45  # of the sentences that can bear more

_AN = re.compile(r"\b([Aa]) (?=[aeiou])")


@cache
def slots_of(shape: str) -> tuple[str, ...]:
    """The names of a shape's slots, each once, in reading order."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(shape) if name))


@cache
def _free_slots(shape: str, known: frozenset[str]) -> tuple[tuple[str, Sequence[str]], ...]:
    return tuple((slot, FREE[slot.rstrip("23")]) for slot in slots_of(shape) if slot not in known)


def fill(dice: Dice, shape: str, known: dict[str, str]) -> str:
    """`shape` with its slots filled from `known`, or else drawn."""
    drawn = {slot: dice.choose(options) for slot, options in _free_slots(shape, frozenset(known))}
    return shape.format_map(known | drawn)


def sentence(text: str) -> str:
    """`text` with "an" where it belongs and a capital letter in front."""
    text = _AN.sub(r"\1n ", text)
    start = 1 if text[0] == '"' else 0
    return text[:start] + text[start].upper() + text[start + 1 :]


def pronouns(name: str, prefix: str = "") -> dict[str, str]:
    """The slots `he`, `his`, `him` (with `prefix`) for a person of the world."""
    three = ("she", "her", "her") if name in _girls() else ("he", "his", "him")
    return dict(zip((prefix + "he", prefix + "his", prefix + "him"), three, strict=True))


@cache
def _girls() -> frozenset[str]:
    return frozenset(words.GIRLS)


@dataclass
class Teller:
    """Tells events as sentences: the state of the story, and what was told so far."""

    dice: Dice
    state: dict[str, str]
    told: list[str] = field(default_factory=list)

    def tell(self, event: str, opener: bool = True) -> None:
        """Add one sentence for `event`; an opener is a phrase like "after that," in front."""
        shape = self.dice.choose(SHAPES[event])
        front = self.dice.choose(words.OPENERS) if opener and shape.startswith(OPENED) else ""
        if opener and shape.endswith(".") and self.dice.chance(TAIL_SHARE):
            shape = shape[:-1] + self.dice.choose(TAILS) + "."
        self.told.append(sentence(front + self.fill(shape)))

    def fill(self, shape: str) -> str:
        """`shape` with its slots filled from the state, or else drawn."""
        return fill(self.dice, shape, self.state)

    def maybe(self, event: str) -> None:
        """The event in one story of two."""
        if self.dice.chance(0.5):
            self.tell(event)


def cast(dice: Dice) -> dict[str, str]:
    """Two people and a place: the slots that every plot has."""
    a, b = dice.sample(words.CAST, 2)
    return {"a": a, "b": b, **pronouns(a), **pronouns(b, "b"), **located(dice.choose(words.SCENES))}


def located(town: str, number: str = "") -> dict[str, str]:
    """The slots `at` ("in Ashford") and `pl` ("Ashford"), with `number` behind."""
    return {"at" + number: f"in {town}", "pl" + number: town}


def second_place(story: Teller) -> dict[str, str]:
    """Another place than the one where the story began."""
    return located(story.dice.choose([town for town in words.SCENES if town != story.state["pl"]]), "2")


def coloured(dice: Dice, number: str = "") -> dict[str, str]:
    """A thing and its colour: the slots `t` ("red ball") and `tn` ("ball"), with `number` behind."""
    colour, thing = dice.choose(words.PAINTS), dice.choose(words.OWNED)
    return {"t" + number: f"{colour} {thing}", "tn" + number: thing}


def _lost(story: Teller) -> str:
    story.state |= coloured(story.dice) | second_place(story)
    story.tell("owns")
    story.maybe("detail")
    story.tell("lose")
    story.tell("search")
    story.maybe("search")
    story.tell("found_by_b" if story.dice.chance(0.5) else "found_by_a")
    return story.state["tn"]


def _gift(story: Teller) -> str:
    story.state |= coloured(story.dice)
    story.tell("owns")
    story.maybe("detail")
    story.tell("give")
    story.tell("thanks")
    story.state["name"] = story.state["b"]
    story.tell("has")
    return story.state["tn"]


def _trade(story: Teller) -> str:
    state = story.state
    state |= coloured(story.dice)
    story.tell("owns")
    colour = story.dice.choose(words.PAINTS)
    other = story.dice.choose([thing for thing in words.OWNED if thing != state["tn"]])
    state |= {"t2": f"{colour} {other}", "tn2": other}
    story.tell("trade")
    story.maybe("detail")
    story.tell("swap")
    state["name"] = state["b"]
    story.tell("has")
    state |= {"t": state["t2"], "tn": other, "name": state["a"]}
    story.tell("has")
    return other


def _broken(story: Teller) -> str:
    story.state["m"] = story.dice.choose(words.MACHINES)
    story.tell("machine")
    story.maybe("detail")
    for event in ("breaks", "upset", "mends", "works"):
        story.tell(event)
    return story.state["m"]


def _journey(story: Teller) -> str:
    story.state |= second_place(story)
    story.tell("sets_out")
    story.tell("travels")
    story.maybe("travels")
    story.maybe("detail")
    story.tell("arrives")
    return story.state["pl2"]


def _hiding(story: Teller) -> str:
    story.state |= second_place(story)
    for event in ("hides", "seeks"):
        story.tell(event)
    story.maybe("seeks")
    story.tell("seek_ends")
    return story.state["pl2"]


def _cooking(story: Teller) -> str:
    story.state["dish"] = story.dice.choose(words.DISHES)
    story.tell("wants_to_cook")
    story.tell("cooks")
    story.tell("cooks")
    story.maybe("detail")
    story.tell("eats")
    return story.state["dish"]


def _counting(story: Teller) -> str:
    x, y = story.dice.choose(train_pairs())
    things = story.dice.choose(words.COUNTED)
    story.state |= {"x": spoken(x), "y": spoken(y), "z": spoken(x + y), "things": things}
    story.tell("has_some")
    story.maybe("detail")
    story.tell("gets_more")
    story.tell("in_all")
    return things


def _storm(story: Teller) -> str:
    story.state |= second_place(story) | {"s": story.dice.choose(words.STORMS)}
    story.tell("storm_comes")
    story.tell("shelter")
    story.maybe("detail")
    story.tell("storm_ends")
    return story.state["s"]


def _animal(story: Teller) -> str:
    story.state["an"] = story.dice.choose(words.PETS)
    story.tell("animal_in_need")
    story.tell("animal_helped")
    story.maybe("animal_helped")
    story.maybe("detail")
    story.tell("animal_well")
    return story.state["an"]


PLOTS: Final[dict[str, Callable[[Teller], str]]] = {
    "lost": _lost,
    "gift": _gift,
    "trade": _trade,
    "broken": _broken,
    "journey": _journey,
    "hiding": _hiding,
    "cooking": _cooking,
    "counting": _counting,
    "storm": _storm,
    "animal": _animal,
}


def tell_story(dice: Dice) -> tuple[list[str], str]:
    """The sentences of one story, and its content key: the plot, the people and what it is about."""
    teller = Teller(dice, cast(dice))
    plot = dice.choose(tuple(PLOTS))
    teller.tell("begin", opener=False)
    teller.tell("friend")
    about = PLOTS[plot](teller)
    teller.maybe("end")
    return teller.told, "|".join((plot, teller.state["a"], teller.state["b"], about))


def story(dice: Dice) -> tuple[str, str]:
    """One story as a text, and its content key."""
    told, key = tell_story(dice)
    return " ".join(told), key

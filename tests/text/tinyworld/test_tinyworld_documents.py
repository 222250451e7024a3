"""The documents: deterministic, true, split by content, varied, and with an exact floor."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import TypeVar

from pellucid.text.tinyworld import Document, dialogues, documents, facts, scenes, stories, words
from pellucid.text.tinyworld.arithmetic import TENS, UNITS, spoken, sum_split, train_pairs
from pellucid.text.tinyworld.dice import Dice
from pellucid.text.tinyworld.shapes import SHAPES, TAILS

T = TypeVar("T")
MAKERS = {"story": stories.story, "facts": facts.fact_sheet, "dialogue": dialogues.dialogue}


@cache
def corpus(seed: int = 1, count: int = 6000) -> list[Document]:
    return list(islice(documents(seed), count))


class RecordingDice(Dice):
    """Dice that remember what was chosen and see that no option stands twice."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.chosen: list[object] = []

    def choose(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        assert len({str(option) for option in options}) == len(options), options
        choice = super().choose(options, weights)
        self.chosen.append(choice)
        return choice


def test_same_seed_gives_the_same_documents_and_another_seed_others() -> None:
    assert corpus()[:200] == list(islice(documents(1), 200))
    assert corpus()[:200] != list(islice(documents(2), 200))


def test_every_chosen_word_stands_in_the_text_so_the_surprisal_is_the_texts_own() -> None:
    for kind, make in MAKERS.items():
        for seed in range(150):
            dice = RecordingDice(seed)
            text = make(dice)[0].lower()
            for choice in dice.chosen:
                if isinstance(choice, str) and "{" not in choice and choice not in stories.PLOTS:
                    if choice in facts.STATEMENTS or choice in dialogues.TALKS:
                        continue  # told by the shape of the sentence
                    assert re.sub(r"\ba (?=[aeiou])", "an ", choice.lower().strip()) in text, (kind, choice, text)


STATE = {
    "a": words.NAMES, "b": words.NAMES, "name": words.NAMES, "who": words.NAMES,
    "he": ("he", "she"), "his": ("his", "her"), "him": ("him", "her"),
    "bhe": ("he", "she"), "bhis": ("his", "her"), "bhim": ("him", "her"),
    "tn": words.THINGS, "m": words.MACHINES, "s": words.STORMS, "an": words.ANIMALS, "things": words.COUNTED,
}  # fmt: skip


NUMBER = f"(?:{'|'.join(TENS[2:])}) (?:{'|'.join(UNITS[1:])})"


def slot_pattern(slot: str) -> str:
    slot = slot.rstrip("23")
    if slot in ("x", "y", "z"):
        return NUMBER
    if slot == "t":
        return f"(?:{'|'.join(words.COLOURS)}) (?:{'|'.join(words.THINGS)})"
    if slot in ("at", "pl"):
        preposition = "" if slot == "pl" else "in "
        return f"{preposition}(?:{'|'.join(words.SCENES)})"
    return f"(?:{'|'.join(STATE.get(slot) or stories.FREE[slot])})"


def pattern(shape: str) -> str:
    parts = re.split(r"\{(\w+)\}", shape)
    return "".join(slot_pattern(part) if i % 2 else re.escape(part) for i, part in enumerate(parts))


def test_every_sentence_of_a_story_can_be_read_in_one_way_only() -> None:
    tails = "(?:" + "|".join(pattern(tail) for tail in TAILS) + ")?"
    readings = {
        (event, shape): re.compile(
            pattern(shape[:-1]) + (tails if shape[-1] == "." else "") + re.escape(shape[-1]), re.I
        )
        for event, shapes in SHAPES.items()
        for shape in shapes
    }
    # What every sentence of a shape holds: most shapes need not be tried by their regular expression.
    held = {key: max(re.split(r"\{\w+\}", key[1][:-1].lower()), key=len) for key in readings}
    for seed in range(60):
        for told in stories.tell_story(Dice(seed))[0]:
            plain = re.sub(r"\ban (?=[aeiou])", "a ", told, flags=re.I).lower()
            found = []
            for opener in words.OPENERS:
                if plain.startswith(opener):
                    rest = plain[len(opener) :]
                    found += [
                        (opener, key)
                        for key, reading in readings.items()
                        if held[key] in rest
                        and (not opener or key[1].startswith(stories.OPENED))
                        and reading.fullmatch(rest)
                    ]
            assert len(found) == 1, (told, found)


def test_equal_texts_have_equal_surprisal() -> None:
    known: dict[str, float] = {}
    for document in corpus():
        assert abs(known.setdefault(document.text, document.nats) - document.nats) < 1e-9


def test_the_floor_is_high_enough_to_be_a_language_and_low_enough_to_be_learnt() -> None:
    total = sum(len(re.findall(r"[\w'-]+", document.text)) for document in corpus())  # b-e-d is a word
    assert 1.4 < sum(document.nats for document in corpus()) / total < 2.4


def test_there_are_thousands_of_words_and_hundreds_of_shapes() -> None:
    found = {word for document in corpus(1, 20000) for word in re.findall(r"[a-z']+", document.text.lower())}
    assert len(found) >= 2000
    lists = [*SHAPES.values(), TAILS, facts.LESSONS, facts.SOURCES, scenes.PUT, scenes.HOLD, dialogues.SCENES]
    lists += [dialogues.ASKED, dialogues.ANSWERED, dialogues.FOUND]
    shapes = [shape for shapes in lists for shape in shapes] + [answer for _, answer in dialogues.CHATS]
    assert len(shapes) == len(set(shapes)) >= 300


def test_word_lists_have_no_doubles() -> None:
    for name, options in stories.FREE.items():
        assert len(set(options)) == len(options), name
    assert not set(words.SCENES) & set(words.FAR_TOWNS)
    assert not set(words.GIRLS) & set(words.BOYS)


def test_stories_have_four_to_twelve_sentences() -> None:
    assert {len(stories.tell_story(Dice(seed))[0]) for seed in range(500)} <= set(range(4, 13))


def test_a_content_key_lies_in_one_split_and_no_held_out_text_is_a_training_text() -> None:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for seed in (1, 2):
        for document in corpus(seed):
            splits[document.text].add(document.split)
    assert all(len(found) == 1 for found in splits.values())
    counted = Counter(document.split for document in corpus())
    assert 0.03 < counted["test"] / len(corpus()) < 0.07
    assert 0.03 < counted["val"] / len(corpus()) < 0.07


def test_who_holds_what_stays_true_in_a_trade() -> None:
    thing = rf"(?:(?:{'|'.join(words.COLOURS)}) )"
    holders = [rf"now (\w+) had the {thing}?(\w+)", rf"(\w+) kept the {thing}?(\w+)", r"(\w+) put the (\w+) on a"]
    holders += [rf"came to have the {thing}(\w+)"]
    checked = 0
    for seed in range(1500):
        told, key = stories.tell_story(Dice(seed))
        plot, a, b, _ = key.split("|")
        if plot != "trade":
            continue
        text = " ".join(told)
        first, second = list(dict.fromkeys(re.findall(rf"{thing}({'|'.join(words.THINGS)})\b", text)))[:2]
        for shape in holders[:3]:
            for name, held in re.findall(shape, text, re.I):
                if held in (first, second) and name in (a, b):
                    assert (held == first) == (name == b), text
                    checked += 1
    assert checked > 50


def test_a_lost_thing_is_found_where_it_was_lost() -> None:
    places = rf"\b[Ii]n ({'|'.join(words.SCENES)})\b"
    checked = 0
    for seed in range(1500):
        told, key = stories.tell_story(Dice(seed))
        if key.startswith("lost|"):
            counted = Counter(re.findall(places, " ".join(told)))
            assert sorted(counted.values()) == [1, 2], told
            checked += 1
    assert checked > 50


NUMBERS = {spoken(10 * tens + units): 10 * tens + units for tens in range(2, 10) for units in range(1, 10)}


def test_every_sum_is_right_and_none_is_held_out() -> None:
    seen = set()
    number = f"({NUMBER})"
    shapes = (rf"{number} plus {number} is {number}", rf"sum of {number} and {number} is {number}")
    shapes = (*shapes, rf"{number} and {number} make {number}")
    for document in corpus(1, 20000):
        for shape in shapes:
            for found in re.findall(shape, document.text.lower()):
                x, y, z = (NUMBERS[name] for name in found)
                assert x + y == z
                assert sum_split(x, y) == "train"
                seen.add((x, y))
    assert seen <= set(train_pairs())
    assert len(seen) > 0.95 * len(train_pairs())


def test_an_answer_about_a_place_says_where_the_thing_was_left() -> None:
    checked = 0
    for document in corpus():
        for thing in re.findall(r'Where is the (\w+ \w+)\?"', document.text) if document.kind == "dialogue" else ():
            answer = re.search(rf'"The {thing} is (in \w+)\."', document.text)
            assert answer
            left = next(s for s in re.split(r"(?<=\.) ", document.text) if re.search(rf"the {thing}\b", s))
            assert left.endswith(f"the {thing} {answer[1]}."), document.text
            checked += 1
    assert checked > 50


def test_no_dialogue_asks_for_a_held_out_word() -> None:
    shapes = {
        "opposite": r"the opposite of (\w+)\?",
        "plural": r"the plural of (\w+)\?",
        "past_tense": r"the past tense of (\w+)\?",
        "category": r"[Ww]hat is an? (\w+)\?",
        "colour": r"usual colour of an? (\w+)\?",
    }
    seen = Counter[str]()
    for document in corpus(1, 20000):
        for family, shape in shapes.items():
            for word in re.findall(shape, document.text):
                assert facts.word_split(family, word) == "train", document.text
                seen[family] += 1
    assert set(seen) == set(shapes)

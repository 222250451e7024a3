"""The instructions: answers that a program checks, splits disjoint in content, and no use in copying the nearest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from itertools import islice

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from pellucid.text.tinyworld import FAMILIES, Instruction, instructions, is_right
from pellucid.text.tinyworld.lessons import LESSONS, lessons
from pellucid.text.tinyworld.phrasings import PHRASINGS
from pellucid.text.tinyworld.words import CAST


@cache
def drawn(seed: int = 1, count: int = 10000) -> list[Instruction]:
    return list(islice(instructions(seed), count))


def content(example: Instruction) -> str:
    """What is asked, read off the finished example by other means than the generator's."""
    if example.family in ("opposite", "plural", "past_tense", "category", "colour", "spelling"):
        names = example.output.rstrip(".").lower().split()
        asked = {"opposite": (3, 5), "category": (1,), "colour": (5,), "spelling": (2,)}.get(example.family, (-3,))
        return "/".join(sorted(names[i] for i in asked))
    if example.family == "sum":
        return "/".join(sorted(re.split(" plus | is ", example.output.lower())[:2]))
    if example.family == "repeating":
        return "/".join(sorted(example.output.rstrip(".").split()[2:]))
    if example.family in ("sorting", "counting"):
        return "/".join(sorted(example.input.split(", ")))
    if example.family == "pattern":
        items = example.input.split()
        return "/".join(items[:2]) if items[0].isdigit() else "/".join(sorted(set(items)))
    if example.family == "first_letter":
        return example.output.split()[4]
    if example.family == "small_talk":
        return example.instruction
    if example.family == "rewriting":
        return f"{example.input} {example.output}"
    if re.match(r"The \w+ \w+ is in ", example.output):
        return example.output
    who_last = re.fullmatch(r"The (\w+ \w+) is with (\w+)\.", example.output)
    who_first = re.fullmatch(r"(\w+) has the (\w+ \w+)\.", example.output)
    assert who_last or who_first, example.output
    return f"{who_last[2]} has {who_last[1]}" if who_last else f"{who_first[1]} has {who_first[2]}"


def test_same_seed_gives_the_same_instructions() -> None:
    assert drawn()[:100] == list(islice(instructions(1), 100))
    assert drawn()[:100] != list(islice(instructions(2), 100))


def test_families_are_many_and_come_equally_often() -> None:
    assert len(FAMILIES) >= 14
    counted = Counter(example.family for example in drawn())
    assert set(counted) == set(FAMILIES)
    assert min(counted.values()) > 0.8 * len(drawn()) / len(FAMILIES)
    assert all(len(set(phrasings)) == len(phrasings) >= 8 for phrasings in PHRASINGS.values())


def test_the_own_output_is_right_and_another_answer_is_wrong() -> None:
    for example, other in zip(drawn(), drawn()[1:], strict=False):
        assert is_right(example, example.output)
        assert is_right(example, f" {example.output}\n")
        assert not is_right(example, example.output[:-1] + " indeed.")
        assert not is_right(example, "")
        if other.output != example.output and {other.family, example.family} != {"sum"}:
            assert not is_right(example, other.output)


def test_a_sum_may_be_turned_around_but_not_changed() -> None:
    asked, right = "What is twenty one plus thirty two?", "Twenty one plus thirty two is fifty three."
    example = Instruction(asked, "", right, "sum", "train")
    assert is_right(example, "Thirty two plus twenty one is fifty three.")
    assert not is_right(example, "Thirty two plus twenty one is fifty four.")
    assert not is_right(example, "Twenty two plus thirty one is fifty three.")


def test_no_content_lies_in_two_splits() -> None:
    splits: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for seed in (1, 2):
        for example in drawn(seed):
            splits[example.family.replace("what", "who"), content(example)].add(example.split)
    assert [key for key, found in splits.items() if len(found) > 1] == []
    for family in FAMILIES:
        counted = Counter(example.split for example in drawn() if example.family == family)
        assert 0.04 < counted["test"] / counted.total() < 0.22, family


def test_answers_follow_from_the_input() -> None:
    for example in drawn():
        if example.family == "counting":
            assert f" {len(example.input.split(', '))} " in example.output
        elif example.family == "sorting":
            right = sorted(example.input.split(", "))
            assert example.output == f"The words in order are {right[0]}, {right[1]} and {right[2]}."
        elif example.family == "first_letter":
            word, letter = re.findall(r"letter of (\w+) is (\w)\.", example.output)[0]
            assert word[0] == letter
        elif example.family == "spelling":
            word, letters = re.findall(r"word (\w+) is spelled (\S+)\.", example.output)[0]
            assert letters.replace("-", "") == word
        elif example.family.startswith("story"):
            (found,) = re.findall(r"^(?:(\w+) has )?[Tt]he (\w+ \w+)(?: is (in|with) (\w+))?\.$", example.output)
            who, thing, _, where_or_who = found
            told = next(s for s in re.split(r"(?<=\.) ", example.input) if re.search(rf"the {thing}\b", s))
            assert (who or where_or_who) in told
            assert 3 <= len(re.split(r"(?<=\.) ", example.input)) <= 5


def test_the_answer_of_the_nearest_training_example_is_mostly_wrong() -> None:
    train = [example for example in drawn() if example.split == "train"][:8000]
    test = [example for example in drawn(2) if example.split == "test"][:500]
    vectors = TfidfVectorizer()
    known = vectors.fit_transform([f"{e.instruction} {e.input}" for e in train])
    asked = vectors.transform([f"{e.instruction} {e.input}" for e in test])
    nearest = (asked @ known.T).toarray().argmax(axis=1)
    right = sum(is_right(e, train[i].output) for e, i in zip(test, nearest, strict=True))
    assert right / len(test) < 0.30


def named_in(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if word in CAST]


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_asks_about_people_with_names_some_of_them_among_others(name: str) -> None:
    lesson, found = LESSONS[name], list(islice(lessons(1, name), 600))
    what = [example for example in found if " has the " in example.output]
    assert 150 < len(what) < 250, "a third of the questions"
    for example in found:
        assert example.family == name
        assert is_right(example, example.output)
    counted = Counter(len(named_in(example.input)) for example in what)
    assert set(counted) == set(range(1, lesson.named + 1))
    held = [len(re.findall(r"\b(?:to|for|with) (?:the )?\w+\.", example.input)) for example in what]
    assert set(held) == set(range(1 + lesson.others[0], lesson.named + lesson.others[1] + 1))
    if lesson.others != (0, 0):  # nothing else is told: beside the weather the lesson is hardly learnt
        assert held == [example.input.count(".") for example in what]


def test_what_a_lesson_asks_is_told_of_nobody_else_and_its_held_out_pairs_are_those_of_the_instructions() -> None:
    splits = {content(example): example.split for example in drawn() if example.family in ("story_who", "story_what")}
    shared = 0
    for example in islice(lessons(1, "names-and-others"), 3000):
        who_has = re.fullmatch(r"(\w+) has the (\w+ \w+)\.", example.output)
        if who_has:
            assert named_in(example.input).count(who_has[1]) == 1
            assert re.search(rf"the {who_has[2]} (?:to|for|with) {who_has[1]}\.", example.input)
        if content(example) in splits:
            shared += 1
            assert splits[content(example)] == example.split
    assert shared > 500

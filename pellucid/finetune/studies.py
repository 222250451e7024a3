"""What a run was finetuned on, as run.json tells of it and of the models that it was made of.

So that nobody is examined in what he was taught: the seed that divided the file divides it again, and what then lies in
train or val is no question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.finetune.answers import talks
from pellucid.finetune.instructions import Example, once, read_instructions, split_examples
from pellucid.finetune.prefer import read_pairs
from pellucid.runtime import DataError, PellucidError, inform, problem, read_json, sha256
from pellucid.text.tokenizer import Tokenizer

READERS: dict[str, Callable[[Path], Sequence[Example]]] = {
    "finetune instruct": read_instructions,
    "finetune prefer": read_pairs,
}


@dataclass(frozen=True)
class Study:
    """One finetuning: by which verb, of which file with which hash, and the seed that divided it."""

    verb: str
    file: Path
    sha256: str
    seed: int

    def met(self, file: Path) -> set[str]:
        """The questions of `file`, which is its own, that training or validation had."""
        splits = split_examples(READERS[self.verb](file), seed=self.seed)
        examples = [example for name in ("train", "val") for example in splits[name]]
        return {key for example in examples for key in (example.key, *example.answered_before)}


def studies_of(run: Path) -> tuple[list[Study], bool]:
    """The finetunings of a run, newest first, as far back as run.json files tell; whether they tell all of them.

    A model that preferences were trained on was an assistant before: where nothing tells of that, something is missing.
    """
    found: list[Study] = []
    seen: set[Path] = set()
    while run not in seen:
        seen.add(run)
        try:
            record = read_json(run / "run.json")
            verb, config, hashes = record["verb"], record["config"], list(record["data"].values())
            if verb not in READERS:
                return found, True
            found.append(Study(verb, Path(config["data"]), str(hashes[0]), int(config["seed"])))
            run = Path(config["run"])
        except (PellucidError, LookupError, TypeError, ValueError, AttributeError):
            break
    return found, not (found and found[-1].verb == "finetune prefer")


@dataclass(frozen=True)
class HeldOut:
    """Questions that no run was trained on, the seed that divided their file, and the runs of which that is unsure."""

    examples: list[Example]
    seed: int
    unsure: list[str]


def held_out(data: Path, runs: Sequence[Path], seed: int | None = None) -> HeldOut:
    """The test split of `data` by `seed` (None: that of the runs' own finetuning, or 0) without what a run has met.

    DataError where nothing is left.
    """
    digest, studies = sha256_of(data), {run: studies_of(run) for run in runs}
    if seed is None:
        seed = next((study.seed for each, _ in studies.values() for study in each if study.sha256 == digest), 0)
    test = once(split_examples(read_instructions(data), seed=seed)["test"])
    met: dict[Study, set[str]] = {}
    unsure: dict[str, str] = {}
    for run, (each, whole) in studies.items():
        if not whole:
            unsure[str(run)] = f"{each[-1].verb} began with a model whose run.json is not there"
        if not (run / "run.json").is_file() and talks(Tokenizer.load(run)):
            unsure[str(run)] = "there is no run.json in it"
        for study in each:
            file = next((file for file in (data, study.file) if sha256_of(file) == study.sha256), None)
            if file is None:
                unsure[str(run)] = f"{study.file} is not there as it was"
            elif study not in met:
                met[study] = study.met(file)
    for name, reason in unsure.items():
        inform(f"{name}: it may have been trained on these questions, as {reason}.")
    known = set().union(*met.values())
    left = [example for example in test if example.key not in known]
    if not left:
        advice = "Give the --seed that they were trained with, or other questions."
        raise DataError(problem(data, "no question that none of the runs was trained on", "some", advice))
    if len(left) < len(test):
        inform(f"{data}: {len(test) - len(left)} of {len(test)} questions are left out, for a run was trained on them.")
    return HeldOut(left, seed, list(unsure))


def sha256_of(file: Path) -> str:
    """The hash of a file, or "" where there is none."""
    return sha256(file) if file.is_file() else ""

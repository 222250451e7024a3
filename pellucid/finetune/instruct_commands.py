"""What the command line does with assistants: make one from instructions; `prefer_commands.py` goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.compute import pick_device
from pellucid.config import FitConfig
from pellucid.finetune.answers import (
    Answer,
    answer_all,
    assistant_scores,
    in_brackets,
    reference_perplexity,
    same_text,
)
from pellucid.finetune.conversation import ROLE_TOKENS
from pellucid.finetune.instruct import InstructionTuning, prepare_model, save_assistant
from pellucid.finetune.instructions import Example, once, read_instructions, split_examples
from pellucid.finetune.lora import Lora, merge_adapters, save_adapter, train_part
from pellucid.finetune.nearest import nearest_answers
from pellucid.finetune.recipes import (
    INSTRUCT_RATES,
    fit_config,
    lora_of,
    open_model,
    recorded,
    with_steps,
)
from pellucid.finetune.shown import show_examples
from pellucid.model.gpt import GPT
from pellucid.options import FinetuneInstruct
from pellucid.pretrain.distributed import joined, leave_the_rest_to_the_first
from pellucid.pretrain.fit import Begin, fit, goes_on
from pellucid.pretrain.language import LanguageModelling
from pellucid.runtime import write_json
from pellucid.text.tokenizer import Tokenizer

IsRight = Callable[[Example, str], bool]
SHOWN = 40  # answers kept of each sort, right and wrong
LEAST_ROOM = 100  # tokens that an answer may have


@dataclass(frozen=True)
class Lead:
    """What instruction tuning begins with: nothing but these examples, by settings of their own.

    What is hard to find among much else is found alone, and stays (docs/performance.md).
    """

    name: str
    splits: dict[str, list[Example]]
    config: FitConfig

    def fit(self, pupil: Pupil, out: Path, resume: bool) -> float:
        """Train the pupil on them; a run of its own, in `out`. The minutes that were not needed."""
        task = InstructionTuning(self.splits, pupil.tokenizer, self.config, pupil.model.config.context_length)
        progress = fit(pupil.model, task, self.config, out, resume)
        return max(0.0, self.config.minutes - progress.seconds / 60)


@dataclass
class Pupil:
    """A model about to be finetuned, with what has to be known when it is saved."""

    base: Path
    model: GPT
    tokenizer: Tokenizer
    train: str
    learns_roles: bool = False
    """Whether role tokens were added, or are as alike as pretraining leaves what no text held: then the embedding is
    trained, too, or nobody could tell them apart."""

    @classmethod
    def open(cls, base: Path, config: FitConfig, train: str = "all", lora: Lora | None = None) -> Pupil:
        """Load `base`, give it the role tokens that it lacks, and freeze what is not trained."""
        torch.manual_seed(config.seed)
        model, tokenizer = open_model(base)
        model, known = model.to(pick_device(config.device)), model.config.vocab_size
        prepare_model(model, tokenizer)
        pupil = cls(base, model, tokenizer, train, model.config.vocab_size > known or roles_alike(model, tokenizer))
        train_part(model, model, train, lora)
        if pupil.learns_roles:
            model.token_embedding.requires_grad_(True)
        return pupil

    def save(self, out: Path, merge: bool = True) -> None:
        """Write the run folder; adapters go into `out`/adapter first, and with `merge` become part of the model."""
        if self.train == "lora":
            embedding = self.model.token_embedding.weight if self.learns_roles else None
            save_adapter(out / "adapter", self.model, str(self.base), embedding=embedding)
            self.tokenizer.save(out / "adapter")
            if merge:
                merge_adapters(self.model)
        if merge or self.train != "lora":
            save_assistant(self.model, self.tokenizer, out)


@torch.no_grad()
def roles_alike(model: GPT, tokenizer: Tokenizer) -> bool:
    """Whether two role tokens have the same vector, to rounding."""
    vectors = model.token_embedding.weight[[tokenizer.special_tokens[name] for name in ROLE_TOKENS]].float().cpu()
    return bool(torch.pdist(vectors).min() <= 1e-3 * vectors.norm(dim=1).max())


def finetune_assistant(
    base: Path,
    splits: dict[str, list[Example]],
    config: FitConfig,
    out: Path,
    resume: bool,
    is_right: IsRight = same_text,
    questions: int = 1000,
    replay: LanguageModelling | None = None,
    train: str = "all",
    lora: Lora | None = None,
    packing: bool = False,
    merge: bool = True,
    leads: Sequence[Lead] = (),
    begin: Begin | None = None,
) -> dict[str, Any]:
    """Finetune the model in `base` on instructions, save it, and let it answer up to `questions` of the test split."""
    pupil = Pupil.open(base, config, train, lora)
    context = pupil.model.config.context_length
    task = InstructionTuning(splits, pupil.tokenizer, config, context, replay, packing)
    show_examples(task.rows["train"], pupil.tokenizer)
    left = sum(lead.fit(pupil, out / "lead" / lead.name, resume) for lead in leads)
    config = replace(config, minutes=config.minutes + left)
    fit(pupil.model, task, config, out, resume, begin)
    leave_the_rest_to_the_first()
    pupil.save(out, merge)
    return examined(pupil.model, pupil.tokenizer, splits, is_right, questions)


def examined(
    model: GPT, tokenizer: Tokenizer, splits: Mapping[str, Sequence[Example]], is_right: IsRight, questions: int
) -> dict[str, Any]:
    """Answers to the test split, their scores, and beside them the answers of the nearest training examples."""
    test = once(splits["test"])[:questions]
    model.eval()
    answers = answer_all(model, tokenizer, test, is_right, room_for(test, tokenizer, model.config.context_length))
    baseline = [
        replace(answer, said=said, right=is_right(answer.example, said), ended=True, tokens=len(tokenizer.encode(said)))
        for answer, said in zip(answers, nearest_answers(splits["train"], test), strict=True)
    ]
    perplexity = {"reference_perplexity": reference_perplexity(model, tokenizer, test)}
    return {
        "scores": assistant_scores(answers) | perplexity,
        "baseline": assistant_scores(baseline),
        "answers": [as_row(answer) for answer in some_of(answers)],
        "sizes": {name: len(members) for name, members in splits.items()},
    }


def room_for(examples: Sequence[Example], tokenizer: Tokenizer, context_length: int) -> int:
    """Tokens that an answer may have: half as many again as the longest right one, or it could not end by itself."""
    longest = max(map(len, tokenizer.encode_batch([example.output for example in examples])))
    return min(context_length, max(LEAST_ROOM, longest * 3 // 2))


def some_of(answers: Sequence[Answer]) -> list[Answer]:
    """Answers to show: wrong ones first, then right ones."""
    shown = sorted(answers, key=lambda answer: answer.right)[:SHOWN] + [a for a in answers if a.right][:SHOWN]
    return list(dict.fromkeys(shown))


def as_row(answer: Answer) -> dict[str, Any]:
    """An answer as it stands in scores.json."""
    return {
        "instruction": answer.example.instruction,
        "input": answer.example.input,
        "said": answer.said,
        "expected": answer.example.output,
        "right": answer.right,
        "ended": answer.ended,
        "family": answer.example.family,
    }


def finetune_instruct(options: FinetuneInstruct) -> tuple[dict[str, Any], str]:
    """`pellucid finetune instruct`."""
    config, lora = fit_config(options, INSTRUCT_RATES), lora_of(options)
    splits = split_examples(read_instructions(options.data), seed=options.seed)
    config = with_steps(config, options.epochs, len(splits["train"]))
    with joined():
        resume = goes_on(options.resume, options.out)
        begin = recorded("instruct", options, config, resume, options.data)
        result = finetune_assistant(
            options.run,
            splits,
            config,
            options.out,
            resume,
            train=options.train,
            lora=lora,
            packing=options.packing,
            merge=options.merge,
            begin=begin,
        )
    write_json(options.out / "scores.json", result)
    return summary(result, options.out, alone=lora is not None and not options.merge)


def summary(result: dict[str, Any], out: Path, alone: bool = False) -> tuple[dict[str, Any], str]:
    """What to print of the scores, as an object and for a reader; `alone`: the adapter was not merged."""
    scores, nearest = result["scores"], result["baseline"]["exact_match"]

    def with_interval(name: str, form: str = ".1%") -> str:
        return f"{scores[name]:{form}}{in_brackets(scores['intervals'][name], form)}"

    perplexity = scores["reference_perplexity"]
    several = f"{scores['questions']} held-out questions, 95 % intervals in brackets"
    lines = [
        f"{out}: {several if scores['questions'] > 1 else 'one held-out question, too few for intervals'}",
        f"exact answers {with_interval('exact_match')} (nearest example: {nearest:.1%}), "
        f"words in common, F1 {with_interval('f1', '.3f')}",
        f"end by themselves {with_interval('stop_rate')}, {with_interval('tokens', '.1f')} tokens long, "
        f"said again {with_interval('repetition')}",
        f"perplexity of the right answers {perplexity:.2f}" if perplexity is not None else "",
        f"Next: pellucid import {out / 'adapter'} --out RUN" if alone else f"Next: pellucid chat {out}",
    ]
    return {"out": str(out), **scores, "baseline_exact_match": nearest}, "\n".join(filter(None, lines))

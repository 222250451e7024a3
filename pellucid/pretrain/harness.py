"""An adapter for lm-evaluation-harness (pip install 'pellucid[eval]'): its tasks, answered by a model of ours.

    pellucid evaluate RUN --tasks hellaswag …       pellucid evaluate RUN --tasks mine --task-folder FOLDER

Tasks of its own fetch their data from the network; those in a folder of yours may read local files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pellucid.generation.engine import generate_batch
from pellucid.model.formats.folder import check_fits
from pellucid.model.gpt import GPT
from pellucid.pretrain.questions import likelihoods, split_ids
from pellucid.runtime import DataError, problem
from pellucid.text.content import extra
from pellucid.text.tokenizer import Tokenizer


def harness_model(model: GPT, tokenizer: Tokenizer) -> Any:
    """The model as lm-evaluation-harness wants one: three questions that it can be asked."""
    base: Any = extra("lm_eval.api.model", "the tasks of lm-evaluation-harness", "eval").LM

    class PellucidLM(base):  # type: ignore[misc]
        """Answers of a GPT; rows come as requests, whose `args` are texts."""

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            return likelihoods(model, [split_ids(tokenizer, *request.args) for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            return [self._rolled(request.args[0]) for request in requests]

        def _rolled(self, text: str) -> float:
            """Log-likelihood of a whole text, in parts that fit the context, each after the end of the one before."""
            ids, length = tokenizer.encode(text), model.config.context_length
            parts = [
                (([tokenizer.end_of_text, *ids][at : at + 1]), ids[at : at + length])
                for at in range(0, len(ids), length)
            ]
            return sum(log for log, _ in likelihoods(model, parts))

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            return [self._until(*request.args) for request in requests]

        def _until(self, context: str, settings: dict[str, Any]) -> str:
            most = int(settings.get("max_gen_toks", 128))
            end, size = tokenizer.end_of_text, tokenizer.vocab_size
            prompt = end_that_fits(tokenizer.encode(context), model.config.context_length, most) or [end]
            with torch.inference_mode():
                ((ids, _),) = generate_batch(model, [prompt], most, end, vocab_size=size)
            text = tokenizer.decode(ids)
            stops = settings.get("until") or []
            for stop in [stops] if isinstance(stops, str) else stops:
                text = text.split(stop)[0] if stop else text
            return text

    return PellucidLM()


def end_that_fits(prompt: list[int], context_length: int, most: int) -> list[int]:
    """The end of a prompt that leaves room for `most` tokens of an answer, but half of the context at least.

    A small model then goes on past its context; with less of the prompt nobody would know what was asked.
    """
    return prompt[-max(context_length - most, (context_length + 1) // 2) :]


def evaluate_tasks(run: Path, tasks: Sequence[str], folder: Path | None, limit: int) -> dict[str, Any]:
    """Scores of the harness's tasks (those in `folder` too), of `limit` questions each (0: all)."""
    evaluator = extra("lm_eval.evaluator", "the tasks of lm-evaluation-harness", "eval")
    manager = extra("lm_eval.tasks", "the tasks of lm-evaluation-harness", "eval").TaskManager(
        include_path=None if folder is None else str(folder)
    )
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        advice = "Check the name, or give the folder of its yaml file with --task-folder."
        raise DataError(problem("--tasks", unknown[0], "a task of lm-evaluation-harness", advice))
    model, tokenizer = GPT.load(run), Tokenizer.load(run)
    check_fits(model.config, tokenizer, run)
    asked = harness_model(model, tokenizer)
    found = evaluator.simple_evaluate(
        asked, tasks=list(tasks), task_manager=manager, limit=limit or None, bootstrap_iters=0, log_samples=False
    )
    plain = (int, float)
    return {
        task: {name.split(",")[0]: value for name, value in scores.items() if isinstance(value, plain)}
        for task, scores in found["results"].items()
    }

"""The data of the page Classifier: its scores on held-out texts, and one text live: which words moved the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import regex

from pellucid.finetune.classify import decide, encode_texts, predict
from pellucid.finetune.classify_texts import names_of, sureness
from pellucid.runtime import DataError, problem, read_json
from pellucid.see.shelf import Opened

WORDS = 60  # of a text that are left out one after the other
PIECE = regex.compile(r"\s*\S+\s*")


def results(folder: Path) -> dict[str, Any]:
    """What was measured when the classifier was made: of its own scores.json, or of its quickstart's results."""
    for file in (folder / "scores.json", folder.parent / "results" / "classify.json"):
        if file.is_file():
            found = read_json(file)
            if isinstance(found, dict) and isinstance(found.get("scores"), dict):
                return {"found": True, **found}
    return {"found": False}


def moved(opened: Opened, text: str) -> dict[str, Any]:
    """Label and probabilities of a text, and of each word how much the probability of the label falls without it.

    The words are left out one at a time and the rest is classified again: a measurement, not an estimate.
    """
    model = opened.classifier
    if model is None:
        advice = "Make one with `pellucid finetune classify`, and serve its folder, too."
        raise DataError(problem("model", "one that is no classifier", "a classifier", advice))
    pieces = [match.group() for match in PIECE.finditer(text)]
    words = pieces[:WORDS]
    without = ["".join(pieces[:i] + pieces[i + 1 :]) for i in range(len(words))]
    context = model.gpt.config.context_length
    with opened.lock:
        rows = encode_texts([text, *without], opened.tokenizer, context, model.rule.cut)
        probabilities = predict(model, rows, opened.tokenizer.end_of_text)
    said = decide(probabilities[:1], model.labels, model.rule)[0]
    shown = int(probabilities[0].argmax()) if not said.any() else int((probabilities[0] * said).argmax())
    changes = probabilities[0, shown] - probabilities[1:, shown]
    return {
        "label": names_of(said, model.labels) or "none of them",
        "probability": round(sureness(probabilities[0], said), 6),
        "labels": list(model.labels),
        "probabilities": [round(float(value), 6) for value in probabilities[0]],
        "thresholds": model.rule.thresholds,
        "about": model.labels[shown],
        "words": [{"text": word, "moved": round(float(by), 6)} for word, by in zip(words, changes, strict=True)],
        "cut": len(pieces) > WORDS,
    }

"""`/v1/classify`: the classes of texts, as `pellucid classify` says them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from pellucid.assistant.server.answers import Json
from pellucid.assistant.server.errors import described
from pellucid.assistant.server.metrics import Meter
from pellucid.assistant.server.models import OpenModels
from pellucid.assistant.server.protocol import Classification, ClassifyRequest
from pellucid.finetune.classify import Classifier, decide, encode_texts, predict
from pellucid.finetune.classify_texts import sureness
from pellucid.text.tokenizer import Tokenizer


def routes(models: OpenModels, meter: Meter) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/v1/classify", response_model=None, responses=described(Classification))
    async def classify(request: ClassifyRequest) -> Response:
        """Say the class of each text, with its probability."""
        classifier, tokenizer = await models.classifier(request.model)
        texts = [request.input] if isinstance(request.input, str) else request.input
        rows, read = await models.runs.aside(say, classifier, tokenizer, texts)
        meter.count_tokens(request.model, read, 0)
        usage = {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read}
        return JSONResponse({"object": "list", "model": request.model, "data": rows, "usage": usage})

    return router


def say(classifier: Classifier, tokenizer: Tokenizer, texts: list[str]) -> tuple[list[Json], int]:
    """What is said of each text, and how many tokens were read."""
    ids = encode_texts(texts, tokenizer, classifier.gpt.config.context_length, classifier.rule.cut)
    probabilities = predict(classifier, ids, tokenizer.end_of_text)
    answers = decide(probabilities, classifier.labels, classifier.rule)
    rows = []
    for index, (row, answer) in enumerate(zip(probabilities, answers, strict=True)):
        labels = [label for label, said in zip(classifier.labels, answer, strict=True) if said]
        shares = {label: float(share) for label, share in zip(classifier.labels, row, strict=True)}
        rows.append(
            {
                "index": index,
                "label": "|".join(labels),
                "labels": labels,
                "probability": sureness(row, answer),
                "probabilities": shares,
            }
        )
    return rows, sum(map(len, ids))

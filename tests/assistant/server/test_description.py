"""Schemathesis makes requests out of the OpenAPI description, right and wrong ones: the server keeps its word."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

OF_THE_MODEL = ("context_length_exceeded", "unknown_token", "too_many_texts")  # limits that no schema can say


def ask_everything(url: str, examples: int) -> int:
    """For each route `examples` right requests and as many wrong ones, where there can be any; how many there were.

    An answer must have a status, a type and a content that the description names; no 5xx; wrong ones get a 4xx.
    """
    asked = 0
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:  # any text may be a name

            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                shorten(case.body)
                answer = case.call(timeout=60)
                by_model = answer.status_code == 400 and answer.json()["error"]["code"] in OF_THE_MODEL
                case.validate_response(answer, excluded_checks=[positive_data_acceptance] if by_model else [])

            ask()
    return asked


def shorten(body: Any) -> None:
    """Long texts are asked for short, to save time; what is out of range stays so."""
    if isinstance(body, dict):
        for name, most, enough in (("max_tokens", 4096, 4), ("max_completion_tokens", 4096, 4), ("n", 64, 2)):
            number = body.get(name)
            if isinstance(number, int) and enough < number <= most:
                body[name] = enough


def test_some_requests_of_every_kind_are_answered_as_described(url: str) -> None:
    assert ask_everything(url, 10) > 60


@pytest.mark.nightly
def test_thousands_of_requests_are_answered_as_described(url: str) -> None:
    assert ask_everything(url, 800) >= 5000

"""The precision that this processor multiplies fastest, and how little is tried where that is plain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pellucid.model import precision
from pellucid.model.precision import fastest_precision, seconds_of_product


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    fastest_precision.cache_clear()
    yield
    fastest_precision.cache_clear()


def test_the_fastest_precision_is_that_of_the_shorter_product() -> None:
    seconds = {dtype: seconds_of_product(precision.SIZES[0], dtype) for dtype in (torch.float32, torch.bfloat16)}
    if max(seconds.values()) < precision.CLEARLY * min(seconds.values()):
        pytest.skip("both are about as fast here, and other work may decide")
    assert fastest_precision() == min(seconds, key=lambda dtype: seconds[dtype])


def test_large_products_are_not_tried_where_small_ones_say_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "SIZES", (16, 10**7))  # 400 TB: to try them would raise an error
    monkeypatch.setattr(precision, "CLEARLY", 0)
    assert fastest_precision() in (torch.float32, torch.bfloat16)
    monkeypatch.setattr(precision, "CLEARLY", 1e9)
    fastest_precision.cache_clear()
    with pytest.raises(RuntimeError, match="memory"):
        fastest_precision()

"""Token vectors to look at: nearest by cosine, and a plane that says how much of them it shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.model.embeddings import nearest_tokens, plane
from pellucid.runtime import DataError
from tests.model.families import TINY, lively

BOTH = pytest.mark.parametrize("name", ["gpt2", "llama untied"])


@BOTH
def test_the_nearest_tokens_are_those_of_the_largest_cosines(name: str) -> None:
    model = lively(TINY[name])
    vectors = model.token_embedding.weight.detach().double().numpy()
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = vectors @ vectors[7] / lengths / lengths[7]
    expected = [i for i in np.argsort(-cosines) if i != 7][:5]
    found = nearest_tokens(model, 7, 5)
    assert [item.id for item in found] == expected
    assert [item.cosine for item in found] == pytest.approx(cosines[expected].tolist(), abs=1e-6)


def test_more_tokens_than_there_are_gives_all_the_others() -> None:
    assert len(nearest_tokens(lively(TINY["gpt2"]), 0, 1000)) == TINY["gpt2"].vocab_size - 1


@BOTH
@pytest.mark.parametrize("ids", [None, [3, 5, 8, 13, 21]])
def test_the_plane_shows_the_two_directions_of_the_largest_spread(name: str, ids: list[int] | None) -> None:
    model = lively(TINY[name])
    picture = plane(model, ids)
    vectors = model.token_embedding.weight.detach().double()
    vectors = vectors if ids is None else vectors[ids]
    values = torch.linalg.svdvals(vectors - vectors.mean(dim=0))
    torch.testing.assert_close(picture.points.double().norm(dim=0), values[:2], rtol=1e-5, atol=1e-5)
    assert picture.share == pytest.approx(float(values[:2].square().sum() / values.square().sum()))
    assert torch.equal(picture.points, plane(model, ids).points)


def test_one_token_is_a_point_in_the_middle() -> None:
    assert plane(lively(TINY["gpt2"]), [4]) == (pytest.approx(torch.zeros(1, 2)), 0.0)


def test_an_id_the_model_does_not_have_is_named() -> None:
    for call in (lambda model: nearest_tokens(model, 53), lambda model: plane(model, [1, 53])):
        with pytest.raises(DataError, match="found 53; expected 0 to 52"):
            call(lively(TINY["gpt2"]))

"""The expected curve lies under runs of its own recipe, and under no other."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pellucid.config import PRESETS
from pellucid.opened import Runs
from pellucid.runtime import write_json
from pellucid.see.pictures import Curve, loss_picture
from pellucid.see.references import Band, recipe_of, reference_of
from pellucid.see.report import write_runs_report
from pellucid.see.shelf import Shelf
from pellucid.see.views.training import training

KNOWN = json.loads(files("pellucid.see").joinpath("references.json").read_text(encoding="utf-8"))


def run_of(folder: Path, preset: str, raised: float = 0.0, **other: Any) -> Path:
    """A run folder by a preset's recipe, whose losses lie in the middle of its band, or `raised` above."""
    found = KNOWN[preset]
    folder.mkdir()
    write_json(folder / "run.json", {"command": ["pellucid", "pretrain"], "config": found["recipe"] | other})
    middle = [(low + high) / 2 + raised for low, high in zip(found["low"], found["high"], strict=True)]
    lines = [{"step": 1, "split": "val", "tokens": t, "loss": m} for t, m in zip(found["tokens"], middle, strict=True)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("preset", KNOWN)
def test_a_run_by_the_recipe_of_a_preset_is_laid_over_what_is_expected(preset: str, tmp_path: Path) -> None:
    good, bad = run_of(tmp_path / "good", preset), run_of(tmp_path / "bad", preset, raised=1.0)
    write_runs_report([good], tmp_path / "good.html")
    write_runs_report([bad], tmp_path / "bad.html")
    count = len(KNOWN[preset]["tokens"])
    good_page, bad_page = ((tmp_path / name).read_text(encoding="utf-8") for name in ("good.html", "bad.html"))
    assert f"expected: {preset}, {KNOWN[preset]['seeds']} seeds" in good_page
    assert f"{count} of {count} evaluations lie in the band" in good_page
    assert f"0 of {count} evaluations lie in the band" in bad_page
    assert KNOWN[preset]["command"] in good_page


@pytest.mark.parametrize("other", [{"batch_size": 16}, {"corpus": "own"}, {"lr": 1e-3}])
def test_a_run_by_another_recipe_has_no_reference(other: dict[str, Any], tmp_path: Path) -> None:
    assert reference_of(run_of(tmp_path / "run", "laptop", **other)) is None
    assert reference_of(tmp_path / "nowhere") is None


def test_the_training_page_gets_the_band_of_a_run_by_the_recipe_alone(quickstart: Path, tmp_path: Path) -> None:
    found = KNOWN["laptop"]
    other = run_of(tmp_path / "other", "laptop", steps=490)
    shelf = Shelf(Runs([run_of(tmp_path / "good", "laptop"), other, quickstart]))
    band = training(shelf, "good")["band"]
    assert band["points"] == [list(row) for row in zip(found["tokens"], found["low"], found["high"], strict=True)]
    assert training(shelf, "other")["band"] is None
    assert recipe_of(quickstart) is not None, "what a real run writes says all that decides"
    assert training(shelf, quickstart.name)["band"] is None


def test_references_are_of_presets_as_they_are_now() -> None:
    for preset, found in KNOWN.items():
        shape = found["recipe"]["model"]
        now = PRESETS[preset]
        assert (shape["d_model"], shape["n_layers"], shape["n_heads"]) == (now.d_model, now.n_layers, now.n_heads)
        assert all(low < high for low, high in zip(found["low"], found["high"], strict=True))
        assert found["tokens"] == sorted(found["tokens"])


def test_the_band_is_in_the_picture() -> None:
    curve = Curve("run", [], [(0.0, 3.0), (100.0, 2.0)])
    with_band = loss_picture([curve], band=Band("expected", [0.0, 100.0], [2.9, 1.9], [3.1, 2.1]))
    assert "expected" in with_band
    assert "expected" not in loss_picture([curve])

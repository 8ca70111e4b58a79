"""Outside models are ranked through a class of their own: a classifier, and a language model (a tiny one here)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from hf_mobility.benchmark import Protocol, Result, benchmark

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CITY = Protocol.load("simulated-city")


def ranked(name: str, folder: Path) -> dict[str, float]:
    """Model -> MRR of the short protocol."""
    small = replace(CITY, baselines=("UserFrequency",), reference="UserFrequency", bootstrap=20)
    results: list[Result] = benchmark(small, f"{EXAMPLES / name}", output=folder)
    return {one.model: one.score("simville", "mrr").value for one in results}


def test_a_classifier_of_hand_made_features_beats_nothing_known(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = ranked("rank_classifier.py:Classifier", tmp_path)
    assert found["logistic regression"] > 0.3


def test_a_language_model_continues_the_list_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "tiny-gpt2")
    monkeypatch.setenv("LANGUAGE_MODEL", str(tmp_path / "tiny-gpt2"))
    found = ranked("rank_language_model.py:LanguageModel", tmp_path)
    assert set(found) == {"UserFrequency", "language model tiny-gpt2"}
    assert 0 < found["language model tiny-gpt2"] < found["UserFrequency"]

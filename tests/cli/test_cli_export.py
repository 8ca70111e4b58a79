"""`export`: the graph that is written answers as `predict` does, for other users and in another city."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import call
from samoe_town import make_city

from hf_mobility import City, NextLocationPipeline, SamoeConfig, SamoeForNextLocation, SamoeTokenizer
from hf_mobility.hub.onnx import INPUTS, export_onnx


@pytest.mark.slow
def test_the_graph_answers_as_predict_does(town: SimpleNamespace, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    pytest.importorskip("onnxscript", reason="needs the extra `onnx`")
    told = call("export", town.samoe, "-o", tmp_path / "next.onnx").output
    assert "differ from the model's by at most" in told
    graph = onnxruntime.InferenceSession(str(tmp_path / "next.onnx"))

    known = town.frame[town.frame["user_id"] < 7]
    fewer = City.from_visits(known, timezone=town.city.timezone, name="fewer places")
    elsewhere = NextLocationPipeline.from_pretrained(town.samoe, city=fewer)
    for pipe in (NextLocationPipeline.from_pretrained(town.samoe), elsewhere):
        batch = pipe.tokenizer(known, padding=True, truncation=True, max_length=pipe.context, return_tensors="np")
        logits, _ = graph.run(None, {name: batch[name] for name in INPUTS})
        shares = np.exp(logits[:, 2:] / pipe.tokenizer.temperature)
        shares /= shares.sum(axis=1, keepdims=True)
        for user, table in pipe.predict(known, top_k=3).groupby("user_id"):
            own = shares[sorted(known["user_id"].unique()).index(user)]
            rows = pipe.city.index_of(table["location_id"].to_numpy())
            np.testing.assert_allclose(own[rows], table["probability"], rtol=1e-3)


def test_what_is_not_exported_is_said_before_the_work(tmp_path: Path) -> None:
    assert "end its name in .onnx" in call("export", "anything", "-o", tmp_path / "a.pt", code=1).output
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    config = SamoeConfig.from_preset("tiny", num_poi_features=5, arrival_time=True)
    pipe = NextLocationPipeline(SamoeForNextLocation(config), SamoeTokenizer.from_city(make_city(), config))
    with pytest.raises(ValueError, match="arrival_time=True is not exported"):
        export_onnx(pipe, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())

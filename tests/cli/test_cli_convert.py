"""`convert`: a checkpoint of the authors becomes a folder that loads; faults end in one sentence."""

from __future__ import annotations

from pathlib import Path

import torch
from command_line import call
from transformers import AutoModel
from waves import fill, wave

from benchmarks import authors
from hf_mobility import RawForTrajectoryPrediction


def test_a_checkpoint_becomes_a_folder_of_ours(tmp_path: Path) -> None:
    theirs = fill(authors.Raw(width=16, layers=2, heads=2, length=12))
    torch.save({"model": {f"module.{name}": value for name, value in theirs.state_dict().items()}}, tmp_path / "a.pth")
    asked = ("--system", "raw", "--num-attention-heads", 2, "-o", tmp_path / "raw")
    told = call("convert", tmp_path / "a.pth", *asked).output
    assert "RawForTrajectoryPrediction, 9,570 parameters" in told
    points = wave("points", 3, 9, 2)
    with torch.no_grad():
        predictions, users = theirs(points)
        model = RawForTrajectoryPrediction.from_pretrained(tmp_path / "raw")
        torch.testing.assert_close(model(points).predictions, predictions, atol=1e-5, rtol=1e-5)
        body = AutoModel.from_pretrained(tmp_path / "raw")
        torch.testing.assert_close(body(points).user_embedding, users, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_converted_is_said_in_one_sentence(tmp_path: Path) -> None:
    torch.save({"ln_head.bias": torch.ones(16)}, tmp_path / "a.pth")
    asked = ("--system", "raw", "--num-attention-heads", 2, "-o", tmp_path / "raw")
    told = call("convert", tmp_path / "a.pth", *asked, code=1).output
    assert "no checkpoint of the authors' RAW: tensor positional_embedding.weight is missing" in told
    assert "There is no file" in call("convert", tmp_path / "b.pth", *asked, code=1).output
    call("convert", tmp_path / "a.pth", "-o", tmp_path / "raw", code=2)
    assert not (tmp_path / "raw").exists()

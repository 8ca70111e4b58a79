"""The page of the benchmark prints what its command prints, and committed tables are those of committed results."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from command_line import call

from hf_mobility.benchmark import Protocol, Result, protocol_names
from hf_mobility.benchmark.results import load_results, path_of, to_frame

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/how-to/benchmark.md"
RESULTS = ROOT / "benchmarks/protocols/results"
COMMITTED = sorted(path.stem for path in RESULTS.glob("*.csv"))


def test_the_command_of_the_page_prints_the_table_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    model, printed = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("python", "text"))
    (command,) = re.findall(r"^    hf-mobility (benchmark --protocol .*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("my_model.py").write_text(model)
    found = call(*shlex.split(command)).stdout
    assert [line.split() for line in found.splitlines()] == [line.split() for line in printed.splitlines()]
    assert len(model.splitlines()) <= 22  # a stranger's model is short


def test_committed_results_are_of_the_protocols_as_they_are() -> None:
    assert {"simulated-city", "checkins-crosscity"} <= set(COMMITTED) <= set(protocol_names())
    for path in RESULTS.glob("*/*.json"):
        result = Result.load(path)
        assert result.protocol_hash == Protocol.load(result.protocol).hash, f"{path.name}: run `make results`"
        assert path == path_of(RESULTS, result.protocol, result.model)


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_table_holds_the_committed_results(name: str) -> None:
    results = load_results(RESULTS, Protocol.load(name))
    table = pd.read_csv(RESULTS / f"{name}.csv", comment="#")
    pd.testing.assert_frame_equal(table, to_frame(results), check_dtype=False)
    assert len(results) == len(list((RESULTS / name).glob("*.json")))
    assert all(one.command.startswith("hf-mobility benchmark --protocol") for one in results)
    assert not any(str(one.commit).endswith("-changed") for one in results)

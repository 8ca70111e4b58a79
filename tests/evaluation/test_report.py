"""Tables: baselines first, nothing lost on the way to the file."""

from __future__ import annotations

import pandas as pd
import pytest

from hf_mobility.evaluation.report import order_rows, to_csv, to_markdown

TABLE = pd.DataFrame(
    {
        "city": ["a", "a", "b", "a", "b"],
        "model": ["samoe", "ContextMix, 5 %", "samoe", "UserFrequency", "GRU"],
        "n": [10, 10, 7, 10, 7],
        "mrr": [0.41234, 0.4, 0.3, float("nan"), 0.2],
        "mrr_low": [0.3, 0.3, 0.2, float("nan"), 0.1],
        "mrr_high": [0.5, 0.5, 0.4, float("nan"), 0.3],
    }
)


def test_baselines_stand_first_in_every_city() -> None:
    ordered = order_rows(TABLE)
    assert ordered["city"].tolist() == ["a", "a", "a", "b", "b"]
    assert ordered["model"].tolist() == ["UserFrequency", "ContextMix, 5 %", "samoe", "GRU", "samoe"]
    assert order_rows(TABLE, baselines=("samoe",))["model"].tolist()[0] == "samoe"


def test_markdown_folds_the_intervals_and_keeps_counts_whole() -> None:
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "| city | model | n | mrr |"
    assert lines[2] == "| a | UserFrequency | 10 | – |"
    assert lines[4] == "| a | samoe | 10 | 0.412 [0.300, 0.500] |"
    assert "[" not in to_markdown(TABLE, intervals=False)


def test_csv_carries_its_command_and_comes_back(tmp_path) -> None:
    path = tmp_path / "table.csv"
    before = TABLE.copy()
    to_csv(TABLE, path, command="python -m benchmarks.next_location.evaluate_baselines --neural")
    assert path.read_text().splitlines()[0] == "# python -m benchmarks.next_location.evaluate_baselines --neural"
    back = pd.read_csv(path, comment="#")
    pd.testing.assert_frame_equal(back, order_rows(TABLE), atol=1e-5, check_dtype=False)
    pd.testing.assert_frame_equal(TABLE, before)


def test_tables_and_commands_that_make_no_sense_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="column 'model'"):
        to_markdown(TABLE.drop(columns="model"))
    with pytest.raises(ValueError, match="command"):
        to_csv(TABLE, tmp_path / "t.csv", command="two\nlines")

"""Commands on folders are measured process by process, workers in pairs, and the plan of a large model is reckoned."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from hf_mobility import SamoeConfig, SamoeForNextLocation
from hf_mobility.cli.app import app


def test_commands_on_folders_are_measured_by_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    """In this process, which stands for those that are started."""
    module = import_module("benchmarks.speed.folders")
    usages = iter([(2.0, 1 << 20), (0.5, 1 << 20), (3.0, 3 << 19)])

    def run(command: list[str], folder: Any) -> Any:
        assert command[0] == sys.executable
        if command[2] == "benchmarks.speed.folders":
            monkeypatch.setattr("sys.argv", command[2:])
            return module.main()
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(app, command[3:])
        assert result.exit_code == 0, result.output
        seconds, kib = next(usages)
        return SimpleNamespace(ru_maxrss=kib, ru_utime=seconds, ru_stime=0.5)

    monkeypatch.setattr(module, "run", run)
    rows = [module.measured(*case, 5) for case in (("prepare", 2_000), ("audit", 2_000), ("prepare", 6_000))]
    assert [row["cpu_s"] for row in rows] == [2.5, 1.0, 3.5] and rows[2]["peak_gib"] == 1.5
    few, _, many = (row["rows"] for row in rows)
    assert 2_000 <= few < 6_000 <= many
    table = fill_blocks({"folders": pd.DataFrame(rows)}, ["folders"])
    slope = 1e6 / (many - few)
    assert f"| `prepare` | {few:,}: 1.00 | {many:,}: 1.50 | {0.5 * slope:.2f} | {slope:,.0f} |" in table


def test_every_measured_command_is_one() -> None:
    module = import_module("benchmarks.speed.folders")
    assert {case.split(":")[0] for case in module.CASES} == set(module.COMMANDS)
    for command in module.COMMANDS.values():
        help_text = CliRunner().invoke(app, [command[0], "--help"]).output
        options = [word for word in command if word.startswith("--")]
        assert all(word in help_text for word in options), command


def test_workers_are_timed_at_once_and_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    module = import_module("benchmarks.speed.workers")
    monkeypatch.setattr(module, "COMMAND", [sys.executable, "-c", "import time; time.sleep(0.2)"])
    rows = [row for job in ("predict", "generate") for row in module.measured(job, 2, 1_000, 5, 1)]
    for row in rows:
        assert row["wall_s_one"] > row["wall_s"] > 0.2 and row["cpu_s"] > 0
    table = fill_blocks({"workers": pd.DataFrame(rows)}, ["workers"])
    assert f"| `generate` | 2 | 1 | {rows[1]['cpu_s'] / rows[1]['cpu_s_one']:.2f} |" in table


def test_the_plan_counts_weights_and_products(fill_blocks: Callable[..., str]) -> None:
    module = import_module("benchmarks.speed.plan")
    size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = SamoeConfig.from_preset("tiny", **size)
    model = SamoeForNextLocation(config).eval()
    assert module.parameters(config) == (model.num_parameters(), 3 * 4 * (32 * 32 + 32))
    model.set_attn_implementation("eager")  # whose products are counted
    visits, layers = 16, model.model.layers
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hidden = torch.rand(1, 4, visits, 32)
        for layer in layers:
            hidden = layer(hidden, torch.rand(1, visits, 32), attention_mask=None)
    matrices = {name: weight.numel() for name, weight in layers.named_parameters() if weight.dim() > 1}
    met = sum(number * (4 if "self_attn" in name else 1) for name, number in matrices.items())
    met += sum(number for name, number in matrices.items() if "router.spatial" in name)  # of the times, too
    attention = 2 * 2 * 4 * 3 * 32 * visits  # keys and values, four streams, three layers, the whole window
    assert counter.get_total_flops() == visits * (2 * met + attention)
    shown = fill_blocks({"plan": module.plan()}, ["plan"])
    assert "| parameters N | 1.04 billion | width 1,024, 27 layers, 16 heads |" in shown


def test_what_a_visit_keeps_grows_as_the_plan_says() -> None:
    module = import_module("benchmarks.speed.plan")

    def kept(layers: int, width: int, *, checkpointing: bool = False) -> float:
        size = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2}
        return float(module.kept_of_visit(size, candidates=60, checkpointing=checkpointing, window=16))

    layer = kept(3, 32) - kept(2, 32)
    assert kept(4, 32) - kept(3, 32) == layer
    assert (kept(3, 64) - kept(2, 64)) / layer == pytest.approx(2, rel=0.05)
    inputs = kept(3, 32, checkpointing=True) - kept(2, 32, checkpointing=True)
    assert inputs == 4 * 32 * 4  # the four streams in float32

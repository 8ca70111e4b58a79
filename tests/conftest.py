"""Simulated cities and tiny models that several folders of tests share, given as the fixture `toy`.

Torch is imported on first use, so that tests of the data folder stay quick.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


def make_city(num_users: int = 24, *, seed: int = 1, **options: Any) -> tuple[pd.DataFrame, Any]:
    """Canonical visits (some 15 a person in a week) and their city of 60 places."""
    from hf_mobility import City, simulate_city

    options = {"num_days": 7, "num_locations": 60, "observe": 0.5, "name": f"city {seed}", **options}
    made = simulate_city(num_users, seed=seed, **options)
    return made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)


def make_model(*, seed: int = 0, spread: float | None = 0.2, **overrides: Any) -> Any:
    """A tiny model in evaluation mode. All parameters are drawn with standard deviation `spread`, so that nothing hides
    behind a zero; `None` keeps the usual initial values."""
    import torch

    from hf_mobility import SamoeConfig, SamoeForNextLocation

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SamoeForNextLocation(SamoeConfig.from_preset("tiny", **overrides)).eval()
        for module in model.modules() if spread is not None else ():
            for parameter in module.parameters(recurse=False):
                torch.nn.init.normal_(parameter, std=spread)
            if isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.normal_(module.weight, mean=1.0, std=spread)
    return model


def make_corpus(*cities: tuple[pd.DataFrame, Any], config: Any) -> Any:
    from hf_mobility import CityCorpus, SamoeTokenizer

    return CityCorpus.from_visits([(visits, SamoeTokenizer.from_city(city, config)) for visits, city in cities])


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    return SimpleNamespace(city=make_city, model=make_model, corpus=make_corpus)


@pytest.fixture(scope="session")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a process of its own, in an empty folder with an empty HOME and no network; fail with its output
    if it fails."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "TORCHELASTIC"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*arguments: str, home: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("process") if home is None else home
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**environment, "HOME": str(folder), **extra},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, f"{arguments[:4]} failed:\n{result.stdout[-2000:]}\n{result.stderr[-6000:]}"
        return result

    return run

"""Parts mapped by Ray are those of one process, also where a worker is killed."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hf_mobility.scale import map_parts
from hf_mobility.tokenization.errors import DataError

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
RAY = {"RAY_USAGE_STATS_ENABLED": "0"}
KEYS = {
    "predict": ["user_id", "rank"],
    "embed": ["user_id"],
    "tokenise": ["input_ids", "timestamps"],
    "generate": ["seed", "trajectory_id", "slot"],
}
SCRIPT = """
import os, signal, sys
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import ray
from hf_mobility import (
    City, MobilityEmbeddingPipeline, NextLocationPipeline, SamoeTokenizer, TrajectoryGenerationPipeline, simulate_city
)
from hf_mobility.data import validate_visits
from hf_mobility.data.io.streams import arrow_table, partition_by_user
from hf_mobility.data.sequences import visits_to_dataset
from hf_mobility.scale import map_parts
from hf_mobility.tokenization.errors import NoRecordsError

checkpoints, folder = Path(sys.argv[1]), Path(sys.argv[2])
made = simulate_city(30, num_days=14, observe=0.5, seed=1)
city = City.from_visits(made.visits, timezone=made.timezone, popularity_from=None)
made.visits.sample(frac=1, random_state=0).to_parquet(folder / "visits.parquet", index=False)
files = partition_by_user(folder / "visits.parquet", folder / "users", parts=6)


def predict(pipe, file):
    if file.endswith("part-00002.parquet") and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return pipe.predict(file, top_k=3)


def embed(pipe, file):
    if file.endswith("part-00001.parquet"):
        raise NoRecordsError("nothing is left")
    return pipe.embed_users(file, start="2024-01-01", end="2024-01-08")


tasks = {
    "predict": (files, partial(NextLocationPipeline.from_pretrained, checkpoints / "samoe-small", city=city), predict),
    "embed": (files, partial(MobilityEmbeddingPipeline.from_pretrained, checkpoints / "raw-released-small"), embed),
    "tokenise": (
        files, partial(SamoeTokenizer.from_city, city),
        lambda tokenizer, file: visits_to_dataset(validate_visits(file), tokenizer),
    ),
    "generate": (
        range(3), partial(TrajectoryGenerationPipeline.from_pretrained, checkpoints / "mstar-cells-small"),
        lambda pipe, seed: pipe.generate(2, seed=seed).assign(seed=seed),
    ),
}
ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, _temp_dir=sys.argv[3])
for name, (parts, load, work) in tasks.items():
    workers = 2 if name == "predict" else 1
    map_parts(parts, load, work, workers=workers).write_parquet(str(folder / name))
    assert (folder / "killed").exists()
    loaded, alone = load(), folder / "alone" / name
    alone.mkdir(parents=True)
    for number, part in enumerate(parts):
        try:
            table = arrow_table(work(loaded, str(part)) if name != "generate" else work(loaded, part))
        except NoRecordsError:
            continue
        pq.write_table(table, alone / f"{number}.parquet")
    if name == "predict":
        loaded.predict(made.visits, top_k=3).to_parquet(folder / "alone/whole.parquet")
ray.shutdown()
"""


def rows(folder: Path, keys: list[str]) -> pd.DataFrame:
    """Of all files, which have no order."""
    files = sorted(folder.glob("*.parquet"))
    assert len(files) > 1
    return pd.concat(map(pd.read_parquet, files)).sort_values(
        keys, key=lambda column: column.map(str) if column.dtype == object else column, ignore_index=True
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
def test_parts_mapped_by_two_workers_are_those_of_one_process(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with tempfile.TemporaryDirectory(prefix="ray") as short:  # names of sockets have 107 characters at most
        run_python(str(script), str(CHECKPOINTS), str(tmp_path), short, **RAY)
    for name, keys in KEYS.items():
        found, wanted = rows(tmp_path / name, keys), rows(tmp_path / "alone" / name, keys)
        assert len(wanted) > 5
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    whole = pd.read_parquet(tmp_path / "alone/whole.parquet")
    pd.testing.assert_frame_equal(rows(tmp_path / "predict", KEYS["predict"]), whole, rtol=1e-5)


def test_without_parts_workers_or_ray_nothing_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="There are no parts to map"):
        map_parts([], int, max)
    with pytest.raises(DataError, match="workers must be at least 1, not 0"):
        map_parts(["part-00000.parquet"], int, max, workers=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=re.escape("map_parts needs Ray Data: pip install 'hf_mobility[ray]'")):
        map_parts(["part-00000.parquet"], int, max)

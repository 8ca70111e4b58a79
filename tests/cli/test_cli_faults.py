"""What is wrong with a command or its data, in one sentence; and the help."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from command_line import ZONE, call

from hf_mobility import __version__
from hf_mobility.cli import files

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("prepare", "train", "adapt", "predict", "forecast", "generate", "embed"),
    *("evaluate", "audit", "info", "push"),
)


def test_faults_of_data_and_arguments_are_one_sentence_and_exit_code_1(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.csv"
    (tmp_path / "x.txt").touch()
    town.frame.drop(columns="lat").to_csv(bad, index=False)
    out = ("-o", tmp_path / "out.csv")
    faults = {
        "lacks the column(s)": ("predict", town.samoe, bad, *out),
        "There is no file": ("predict", town.samoe, tmp_path / "nothing.csv", *out),
        "the known file types are": (
            "predict",
            town.samoe,
            town.visits,
            "--city",
            tmp_path / "x.txt",
            "--timezone",
            ZONE,
            *out,
        ),
        "top_k must be between": ("predict", town.samoe, town.visits, "--top-k", 0, *out),
        "end its name in": ("predict", town.samoe, town.visits, "-o", tmp_path / "out.xlsx"),
        "time zone of a new city": ("predict", town.samoe, town.visits, "--city", town.visits, *out),
        "no column(s) lat, lon": ("audit", town.visits, "-o", tmp_path / "out.geoparquet"),
        "must be at least 1": ("generate", generator, "-n", 0, *out),
        "needs a RawModel": ("embed", town.samoe, town.visits, *out),
        "one city at a time": ("train", *[town.visits] * 2, "--timezone", ZONE, "--system", "raw", "-o", tmp_path),
        "min_users must be at least 2, not 1. (Here: --min-users 5.)": ("audit", town.visits, "--min-users", 1),
        "knows the city that it was trained in": (
            *("evaluate", generator, town.visits, "--city", town.visits, "--timezone", ZONE),
        ),
        "num_users must be at least 1": ("prepare", "--simulate", 0, *out),
    }
    for sentence, arguments in faults.items():
        result = call(*arguments, code=1)
        assert result.stderr.strip().splitlines()[-1].startswith("hf-mobility: ")
        assert sentence in result.stderr, result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_what_the_library_says_of_arguments_is_said_of_options(town: SimpleNamespace, tmp_path: Path) -> None:
    naive, unknown, nameless = (tmp_path / f"{name}.csv" for name in ("naive", "unknown", "nameless"))
    out = ("-o", tmp_path / "out.csv")
    town.frame.drop(columns="user_id").to_csv(nameless, index=False)
    town.frame.assign(time=town.frame["time"].dt.tz_localize(None)).to_csv(naive, index=False)
    town.frame.assign(location_id="nowhere").to_csv(unknown, index=False)
    for command, options in {
        ("predict", town.samoe, naive, *out): "(Here: --timezone Europe/Berlin.)",
        ("predict", town.samoe, unknown, *out): "(Here: --unknown nearest.)",
        ("predict", town.samoe, town.visits, "--top-k", 0, *out): "(Here: --top-k 5.)",
        ("predict", town.samoe, nameless, *out): "(Here: --column user_id=NAME.)",
        ("predict", town.samoe, town.visits, "--city", town.visits, *out): "give --timezone, such as Europe/Berlin.",
    }.items():
        assert call(*command, code=1).stderr.strip().endswith(options)
    call("audit", naive, "--timezone", ZONE, "--min-users", 3)
    renamed = tmp_path / "renamed.csv"
    town.frame.rename(columns={"user_id": "uid"}).to_csv(renamed, index=False)
    call("audit", renamed, "--column", "user_id=uid", "--min-users", 3)


def test_an_option_that_is_missing_or_unknown_is_shown_in_an_example(town: SimpleNamespace) -> None:
    for arguments, told in {
        ("predict", town.samoe, town.visits): "Missing option '--output' / '-o'",
        ("predict", town.samoe, town.visits, "--topk", 3): "No such option: --topk",
        ("generate",): "Missing argument 'model'",
    }.items():
        shown = " ".join(call(*arguments, code=2).stderr.replace("│", " ").split())
        assert told in shown.replace("MODEL", "model") and f"For example: hf-mobility {arguments[0]} " in shown, shown


def test_every_command_says_at_once_that_it_begins(town: SimpleNamespace, tmp_path: Path) -> None:
    """Before a heavy package is imported, on stderr; so a table on stdout stays a table."""
    result = call("predict", town.samoe, town.visits, "-o", "-")
    assert result.stderr.splitlines()[0] == "hf-mobility: predict begins"
    assert f"hf-mobility: loading {town.samoe}" in result.stderr and f"reading {town.visits}" in result.stderr
    assert result.stdout.startswith("user_id,rank,")
    told = call("info", town.visits, "-o", tmp_path / "facts.csv")
    assert told.stderr.startswith("hf-mobility: info begins") and "users:" in told.stdout
    assert pd.read_csv(tmp_path / "facts.csv")["what"].tolist()[:2] == ["rows", "users"]


def test_generated_weeks_are_read_as_users(generator: Path, tmp_path: Path) -> None:
    weeks = tmp_path / "weeks.parquet"
    call("generate", generator, "-n", 12, "-o", weeks)
    assert re.search(r"users: +12\n", call("info", weeks).output)
    call(
        "train",
        weeks,
        "--system",
        "mstar-codec",
        "--size",
        "tiny",
        "--steps",
        1,
        "--min-users",
        1,
        "--timezone",
        ZONE,
        "-o",
        tmp_path / "codec",
    )
    assert "give both --train and --held-out" in call("audit", weeks, code=2).stderr


def test_commands_that_are_written_wrongly_end_with_exit_code_2(town: SimpleNamespace, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.csv")
    for arguments in (
        ("predict", town.samoe),
        ("prepare", *out),
        ("prepare", town.visits, "--simulate", 5, *out),
        ("prepare", town.visits, "--card", tmp_path / "c.md", *out),
        ("prepare", town.visits, "--reader", "nothing", *out),
        ("prepare", town.visits, "--reader", "tist2015", *out),
        ("prepare", town.visits, "--box", "1,2", "--reader", "gowalla", *out),
        ("predict", town.samoe, town.visits, "--column", "user_id", *out),
        ("train", town.visits, town.visits, *["--timezone", ZONE] * 3, "-o", tmp_path),
        ("prepare", town.visits, "--cell-km", 1, *out),
        ("prepare", town.visits, "--points", *out),
        ("prepare", town.folder, "--reader", "geolife", "--points", "--cell-km", 1, *out),
        ("audit", town.visits, "--train", town.visits),
        ("embed", town.samoe, town.visits, "--regions", "x.json", "--cell-km", 0.005, *out),
    ):
        call(*arguments, code=2)


def test_help_has_an_example_of_every_command_and_is_quick(run_python: Callable[..., Any]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    script = setup["options.entry_points"]["console_scripts"].strip()
    name, module, attribute = re.fullmatch(r"([\w-]+) = ([\w.]+):(\w+)", script).groups()  # type: ignore[union-attr]
    code = f"import sys; from {module} import {attribute} as main; sys.argv = [{name!r}, '--help']\n"
    code += "import atexit; atexit.register(lambda: print('loaded:', {'torch', 'pandas'} & set(sys.modules)))\nmain()"
    told = run_python("-c", code).stdout
    assert "loaded: set()" in told and f"Usage: {name}" in told
    assert all(re.search(rf"^  {command} ", told, flags=re.MULTILINE) for command in COMMANDS)
    for command in COMMANDS:
        assert f"hf-mobility {command} " in call(command, "--help").output


def test_outputs_and_inputs_are_checked_before_a_model_is_loaded(town: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nothing = tmp_path / "no" / "model"  # which would be an error of its own
    for sentence, arguments in {
        "end its name in": ("predict", nothing, town.visits, "-o", tmp_path / "out.txt"),
        "is a folder; name a file": ("predict", nothing, town.visits, "-o", town_folder(tmp_path)),
        "is no folder": ("predict", nothing, town.visits, "-o", tmp_path / "file" / "out.csv"),
        "There is no file": ("forecast", nothing, tmp_path / "none.csv", "-o", tmp_path / "out.csv"),
        "no folder; name the folder": ("train", town.visits, "--timezone", ZONE, "-o", tmp_path / "file"),
        "there is no such folder": ("predict", nothing, town.visits, "-o", tmp_path / "out.csv"),
        "device 'nowhere'": ("generate", nothing, "--device", "nowhere", "-o", tmp_path / "out.csv"),
    }.items():
        assert sentence in call(*arguments, code=1).stderr


def town_folder(folder: Path) -> Path:
    path = folder / "folder.csv"
    path.mkdir(exist_ok=True)
    return path


def test_the_version_is_the_packages() -> None:
    assert call("--version").output == f"hf-mobility {__version__}\n"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are simulated: the tests may run as a user who may write everywhere."""
    inside = tmp_path / "closed" / "open"
    inside.mkdir(parents=True)
    closed = {tmp_path / "closed", tmp_path / "closed" / "old.csv"}
    (inside.parent / "old.csv").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in closed)
    files.check_folder(inside)  # new files are written into the folder itself
    files.check_output(inside / "new.csv")
    for check, path in [
        (files.check_folder, inside.parent),
        (files.check_folder, inside.parent / "new" / "deeper"),
        (files.check_output, inside.parent / "new.csv"),
        (files.check_output, inside.parent / "old.csv"),
    ]:
        with pytest.raises(PermissionError, match=r"closed.*does not allow it"):
            check(path)

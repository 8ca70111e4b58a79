"""Tries the wheel with the newest requirements that setup.cfg allows: what a user gets who installs today.

    python tools/check_newest.py            a fresh environment, without constraints
    python tools/check_newest.py --short    the newest transformers, peft and huggingface_hub laid over this environment

Both build the wheel and run tools/wheel_smoke.py. Without a package index the short form says so and ends well.
"""

from __future__ import annotations

import argparse
import configparser
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from check_types import ROOT
from check_wheel import build, smoke, try_wheel

MOVING = ("transformers", "peft", "huggingface_hub")
# The version in constraints.txt: a fresh environment differs from it in everything else, and torch alone is gigabytes.
TORCH = next(line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line.startswith("torch=="))


def requirements() -> dict[str, str]:
    """Name -> requirement of setup.cfg, as `transformers>=5.5,<5.25`."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].split("\n")
    return {re.split(r"[<>=~!; ]", line)[0]: line for line in lines if line}


def pip(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True, check=False)


def newest(report: Path) -> list[str]:
    """What pip would change here to have the newest of `MOVING`, as `name==version`."""
    wanted = [requirements()[name] for name in MOVING]
    found = pip("install", "--quiet", "--dry-run", "--upgrade", "--report", str(report), *wanted, TORCH)
    if found.returncode:
        raise SystemExit(f"check_newest: {' '.join(wanted)} cannot be had here\n{found.stderr}")
    packages = [entry["metadata"] for entry in json.loads(report.read_text("utf-8"))["install"]]
    return [f"{package['name']}=={package['version']}" for package in packages]


def short() -> None:
    if pip("index", "versions", "--retries=1", "--timeout=10", "transformers").returncode:
        print("check_newest: no package index can be reached, so the newest requirements are not tried")
        return
    with tempfile.TemporaryDirectory() as folder:
        changed, over = newest(Path(folder) / "report.json"), Path(folder) / "over"
        print("check_newest:", *changed or ["the newest versions are here already"])
        if changed:
            result = pip("install", "--quiet", "--no-deps", "--target", str(over), *changed)
            if result.returncode:
                raise SystemExit(f"check_newest: {result.stderr}")
        _, wheel = build()
        try_wheel(wheel, first=str(over))


def fresh() -> None:
    _, wheel = build()
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "env"
        venv.create(environment, with_pip=True, symlinks=True)
        python = str(environment / "bin" / "python")
        result = pip("install", "--quiet", str(wheel), TORCH, python=python)
        if result.returncode:
            raise SystemExit(f"check_newest: {result.stderr}")
        smoke(environment)
        print(pip("freeze", python=python).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="lay the newest over the running environment")
    (short if parser.parse_args().short else fresh)()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"check_newest: {Path(str(error.cmd[0])).name} ended with exit code {error.returncode}")

"""Shows that the package installs beside other libraries: pip resolves both together, and nothing is installed.

    python tools/check_resolution.py [NAME ...]        by default fev and sentence-transformers, each apart

torch is held at the version of constraints.txt, so that the answer does not need the gigabytes of another one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from check_newest import TORCH
from check_types import ROOT

# lerobot 0.4 is left out: it asks for huggingface_hub below 0.36, and every transformers 5 for 1.3 or more.
BESIDE = ("fev", "sentence-transformers")
SHOWN = ("transformers", "huggingface-hub", "datasets", "peft", "accelerate", "pyarrow", "torch")


def resolve(name: str) -> dict[str, str] | str:
    """Versions by name of the package and `name` together, or what pip says against it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), str(ROOT), TORCH, name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            return result.stderr.strip()
        packages = [entry["metadata"] for entry in json.loads(report.read_text("utf-8"))["install"]]
    return {re.sub(r"[-_.]+", "-", package["name"]).lower(): package["version"] for package in packages}


def main(*names: str) -> int:
    failed = 0
    for name in names or BESIDE:
        found = resolve(name)
        if isinstance(found, str):
            failed += 1
            print(f"{name}: does not resolve\n{found}")
        else:
            together = ", ".join(f"{shown} {found[shown]}" for shown in SHOWN if shown in found)
            print(f"{name} {found[name]} resolves with {together}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Runs mypy on the package in its installed shape, and proves that mypy sees it.

`modeling/` and `tokenization/` are installed inside hf_mobility but stand beside it in the repository, where mypy takes
`hf_mobility.modeling` for an unknown module and lets every error pass as `Any`. So the package is copied into
`build/types/hf_mobility/...` as setup.cfg maps it. The copy then gets a file with deliberate errors (the canary), one
in a plain module and two that are visible only through `hf_mobility.modeling` and `hf_mobility.tokenization`; if mypy
misses one of them, the check fails.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHAPE = ROOT / "build" / "types"
CANARY = "_type_canary.py"


def package_folders() -> dict[str, Path]:
    """Dotted package name -> folder in the repository, relative to its root, as setup.cfg says."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    mapped = {}
    for line in config["options"]["package_dir"].strip().splitlines():
        name, _, folder = line.partition("=")
        mapped[name.strip()] = Path(folder.strip())
    names = config["options"]["packages"].split()
    return {name: mapped.get(name, Path(*name.split("."))) for name in names}


def copy_installed_shape(folders: dict[str, Path]) -> dict[str, str]:
    """Fill build/types and return {path there: path in the repository} for every Python file."""
    shutil.rmtree(SHAPE, ignore_errors=True)
    origin = {}
    for name, folder in folders.items():
        target = SHAPE.joinpath(*name.split("."))
        target.mkdir(parents=True, exist_ok=True)
        for source in sorted((ROOT / folder).iterdir()):
            if source.suffix in {".py", ".pyi", ".typed"}:
                shutil.copy2(source, target / source.name)  # with its times, which mypy's cache goes by
                origin[(target / source.name).relative_to(SHAPE).as_posix()] = (folder / source.name).as_posix()
    return origin


def run_mypy() -> tuple[int, str]:
    command = [sys.executable, "-m", "mypy", "-p", "hf_mobility"]
    command += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    result = subprocess.run(command, cwd=SHAPE, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def first_class(folder: Path, suffix: str) -> tuple[str, str]:
    """(module, class) of the first class whose name ends in `suffix` among the files of a folder."""
    for source in sorted(folder.glob("*.py")):
        found = re.search(rf"^class (\w+{suffix})\b", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if found:
            return source.stem, found.group(1)
    raise SystemExit(f"check_types: no class named *{suffix} in {folder}, so the canary has nothing to look at")


def write_canary() -> dict[str, int]:
    """Write the file with deliberate errors; return {what is proved: line number}."""
    config_module, config = first_class(ROOT / "modeling", "Config")
    tokenizer_module, tokenizer = first_class(ROOT / "tokenization", "Tokenizer")
    lines = [
        f"from hf_mobility.modeling.{config_module} import {config}",
        f"from hf_mobility.tokenization.{tokenizer_module} import {tokenizer}",
        'plain: int = "not an int"',
        f"through_modeling: int = {config}",
        f"through_tokenization: int = {tokenizer}",
    ]
    (SHAPE / "hf_mobility" / CANARY).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"a plain module": 3, "hf_mobility.modeling": 4, "hf_mobility.tokenization": 5}


def main() -> int:
    origin = copy_installed_shape(package_folders())
    status, output = run_mypy()
    for line in output.splitlines():
        path, colon, rest = line.partition(":")
        print(origin.get(path, path) + colon + rest)
    if status:
        return status

    expected = write_canary()
    status, output = run_mypy()
    seen = {int(number) for number in re.findall(rf"{CANARY}:(\d+): error", output)}
    missed = [what for what, number in expected.items() if number not in seen]
    if missed:
        print(f"check_types: mypy did not see deliberate errors in {', '.join(missed)}; its silence proves nothing")
        print(output)
        return 1
    print(f"canary: all {len(expected)} deliberate errors were seen")
    return 0


if __name__ == "__main__":
    sys.exit(main())

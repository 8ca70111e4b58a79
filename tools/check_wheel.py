"""Builds sdist and wheel, checks metadata and contents, and tries the wheel where no checkout can be seen.

The clean environment has no packages of its own but ours. A `.pth` file lends it the heavy dependencies of the
running environment, which saves gigabytes; files named `.pth` inside a lent folder are not read, so the editable
installation there stays invisible and hf_mobility can only come from the wheel. The smoke test checks that it does.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from check_types import ROOT, package_folders

DIST = ROOT / "build" / "dist"
IN_SDIST = (
    *("LICENSE", "README.md", "CHANGELOG.md", "MODEL_CARD.md", "SECURITY.md", "CITATION.cff", "setup.cfg", "Makefile"),
    *("CONTRIBUTING.md", ".github", ".pre-commit-config.yaml"),
    *("tests", "examples", "benchmarks", "docs", "notebooks", "tools", "checkpoints"),
)


def fail(sentence: str) -> None:
    raise SystemExit(f"check_wheel: {sentence}")


def build() -> tuple[Path, Path]:
    """`python -m build`: an isolated build of the sdist, and of the wheel from that sdist."""
    for stale in [DIST, ROOT / "build" / "lib"]:
        shutil.rmtree(stale, ignore_errors=True)
    result = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        fail(f"the build failed\n{result.stdout}\n{result.stderr}")
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


def check_metadata(sdist: Path, wheel: Path) -> None:
    """`twine check --strict`: what PyPI would refuse, or show badly."""
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(sdist), str(wheel)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        fail(f"the metadata are not fit for PyPI\n{result.stdout}\n{result.stderr}")


def expected_files() -> set[str]:
    """Every file of every package folder, at its place in site-packages."""
    files = set()
    for name, folder in package_folders().items():
        for source in (ROOT / folder).iterdir():
            if source.is_file() and source.suffix not in {".pyc", ".pyo"}:
                files.add("/".join([*name.split("."), source.name]))
        for pattern in data_below(name):
            below = (source.relative_to(ROOT / folder) for source in (ROOT / folder).glob(pattern))
            files |= {"/".join([*name.split("."), *source.parts]) for source in below}
    return files


def data_below(package: str) -> list[str]:
    """Patterns of a package's data that lie in folders of their own, from setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = config.get("options.package_data", package, fallback="").replace(",", " ").split()
    return [pattern for pattern in patterns if "/" in pattern]


def files_below(*names: str) -> set[str]:
    """The files of these files and folders, without what Python and the system leave behind."""
    found = {path for name in names for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()}
    kept = {path for path in found if "__pycache__" not in path.parts and path.name != ".DS_Store"}
    return {path.relative_to(ROOT).as_posix() for path in kept}


def check_contents(sdist: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info")}
    top = {name.split("/")[0] for name in names} - info
    if top != {"hf_mobility"} or len(info) != 1:
        fail(f"the wheel's top level is {sorted(top | info)}, it must be hf_mobility and one .dist-info")
    packed = {name for name in names if name.startswith("hf_mobility/")}
    if missing := sorted(expected_files() - packed):
        fail(f"{len(missing)} files of the packages are not in the wheel, first {missing[:5]}")
    if extra := sorted(packed - expected_files()):
        fail(f"{len(extra)} files in the wheel belong to no package, first {extra[:5]}")

    with tarfile.open(sdist) as archive:
        inside = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    if missing := sorted(files_below(*IN_SDIST) - inside):
        fail(f"the sdist lacks {len(missing)} files, first {missing[:5]}: see MANIFEST.in")


def try_wheel(wheel: Path, first: str = "") -> None:
    """Install the wheel alone into a clean environment and run the smoke test there; the packages in the folder `first`
    come before the lent ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "env"
        venv.create(clean, with_pip=False, symlinks=True)
        python = clean / "bin" / "python"
        # pip of the running environment, acting on the clean one: nothing but our wheel is installed.
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
        site = next((clean / "lib").glob("python*/site-packages"))
        (site / "lent_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        smoke(clean, first)


def smoke(environment: Path, first: str = "") -> None:
    """Run tools/wheel_smoke.py from an empty folder in an environment that has the wheel."""
    site = next((environment / "lib").glob("python*/site-packages"))
    with tempfile.TemporaryDirectory() as elsewhere:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(Path(elsewhere) / "hf_home")}
        variables |= {"PYTHONPATH": first} if first else {}
        command = [str(environment / "bin" / "python"), "-P", str(ROOT / "tools" / "wheel_smoke.py"), str(site)]
        command += [str(path.parent) for path in sorted((ROOT / "checkpoints").glob("*/config.json"))]
        subprocess.run(command, cwd=elsewhere, env=variables, check=True)


def main() -> int:
    sdist, wheel = build()
    check_metadata(sdist, wheel)
    check_contents(sdist, wheel)
    try_wheel(wheel)
    print(f"{wheel.name}: hf_mobility alone, complete, and works without the checkout")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"check_wheel: {Path(str(error.cmd[0])).name} ended with exit code {error.returncode}")

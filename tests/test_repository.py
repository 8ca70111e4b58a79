"""Files around the package: workflows, templates, MANIFEST.in, CONTRIBUTING.md, and the check before a release."""

from __future__ import annotations

import configparser
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hf_mobility

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*")


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load(path: Path) -> dict[Any, Any]:
    loaded = yaml.safe_load(read(path))
    assert isinstance(loaded, dict)
    return loaded


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return load(path)["jobs"]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def matrix_values(job: dict[str, Any], name: str) -> list[str]:
    """The values of one variable of a job's matrix, listed or in `include`."""
    matrix = job.get("strategy", {}).get("matrix", {})
    return [*matrix.get(name, []), *(row[name] for row in matrix.get("include", []) if name in row)]


def make_targets(path: Path) -> set[str]:
    """What the jobs of a workflow ask make for; `${{ matrix.target }}` stands for each of its values."""
    found: set[str] = set()
    for job in jobs(path).values():
        for step in job.get("steps", []):
            for target in re.findall(r"\bmake (\$\{\{.*?\}\}|[\w-]+)", step.get("run", "")):
                found |= set(matrix_values(job, "target")) if target.startswith("$") else {target}
    return found


def release_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "check_release.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_there_are_workflows_for_tests_wheel_and_release() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"tests", "wheel", "release"}


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_every_file_for_github_is_yaml(path: Path) -> None:
    assert load(path)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(path: Path) -> None:
    used = [line.split("uses:")[1].strip() for line in read(path).splitlines() if re.match(r"\s*(- )?uses:", line)]
    assert used
    ours = [name for name in used if name.startswith("./")]
    assert all((ROOT / name).is_file() for name in ours)
    assert not [name for name in used if name not in ours and not PINNED.fullmatch(name)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_read_only_end_in_time_and_keep_no_credentials(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"} and "concurrency" in workflow
    assert all("timeout-minutes" in job for job in workflow["jobs"].values() if "steps" in job)
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_the_release_writes_and_each_of_its_jobs_one_thing() -> None:
    every = {(path.stem, name): job for path in WORKFLOWS for name, job in jobs(path).items()}
    granted = {name: job["permissions"] for name, job in every.items() if "permissions" in job}
    assert granted == {("release", "pypi"): {"id-token": "write"}, ("release", "github"): {"contents": "write"}}
    assert jobs(ROOT / ".github/workflows/release.yml")["pypi"]["environment"] == "pypi"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_make_has_every_target_that_a_workflow_calls(path: Path) -> None:
    known = set(re.findall(r"^([\w-]+):(?!=)", read("Makefile"), flags=re.MULTILINE))
    assert make_targets(path) <= known


def test_every_python_of_the_classifiers_is_tested() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    classified = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    assert classified
    assert matrix_values(jobs(ROOT / ".github/workflows/tests.yml")["test"], "python") == classified


def test_manifest_names_what_exists() -> None:
    lines = [line.split() for line in read("MANIFEST.in").splitlines() if line]
    named = [name for command, *names in lines if command in {"include", "graft"} for name in names]
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_guide_for_contributors_names_what_exists() -> None:
    named = re.findall(r"`([\w.]+/[\w./]*)`", read("CONTRIBUTING.md"))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]
    modules = re.findall(r"`(hf_mobility(?:\.\w+)+)`", read("CONTRIBUTING.md"))
    assert modules
    assert not [name for name in modules if importlib.util.find_spec(name) is None]


def test_pre_commit_runs_the_ruff_that_make_runs() -> None:
    hooks = {Path(repo["repo"]).name: repo["rev"] for repo in load(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert f"ruff=={hooks['ruff-pre-commit'].removeprefix('v')}" in read("constraints.txt").splitlines()


def test_the_release_check_prints_the_notes_of_the_version() -> None:
    result = release_check(f"v{hf_mobility.__version__}")
    assert result.returncode == 0, result.stderr
    after = read("CHANGELOG.md").split(f"## {hf_mobility.__version__} - ")[1]
    expected = after.split("\n", 1)[1].split("\n## ")[0]
    assert result.stdout.strip() == expected.strip()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["v9.9.9"], "the tag is v9.9.9"),
        ([f"v{hf_mobility.__version__}", "https://example.org/x"], "no Source, Documentation, Changelog, Issues"),
    ],
)
def test_the_release_check_refuses_what_disagrees(arguments: list[str], sentence: str) -> None:
    result = release_check(*arguments)
    assert result.returncode == 1 and sentence in result.stderr and "Traceback" not in result.stderr


def test_the_page_on_pypi_has_absolute_links_and_pictures_that_exist() -> None:
    from tools.absolute_links import absolute

    made = absolute(read("README.md"), page="README.md", repository="https://example.org/me/it/", tag="v1.0.0")
    links = re.findall(r"\]\(([^)\s]+)\)", made)
    assert len(links) > 30 and all(link.startswith("https://") for link in links)
    assert "(https://example.org/me/it/raw/v1.0.0/docs/img/week.gif)" in made
    assert "(https://example.org/me/it/blob/v1.0.0/docs/index.md#results)" in made
    one = absolute(
        "[a](../../MODEL_CARD.md) [b](#c)", page="checkpoints/x/README.md", repository="https://e.org", tag="v1"
    )
    assert one == "[a](https://e.org/blob/v1/MODEL_CARD.md) [b](#c)"
    with pytest.raises(SystemExit, match=r"there is no no\.md"):
        absolute("[a](no.md)", page="README.md", repository="https://e.org", tag="v1")


def test_the_release_makes_the_links_absolute_before_it_builds() -> None:
    runs = [step.get("run", "") for step in steps(ROOT / ".github/workflows/wheel.yml")]
    (at,) = [number for number, run in enumerate(runs) if "tools/absolute_links.py" in run]
    assert at < runs.index("make wheel PYTHON=python")

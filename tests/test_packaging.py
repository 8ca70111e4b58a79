"""What the package promises about its own files: where things are imported from, what is never used, what is installed.

Most tests read the source as a syntax tree instead of running it, so that they also hold for lines that no test
reaches.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import hf_mobility

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = ("hf_mobility", "modeling", "tokenization")
OTHER_FOLDERS = ("tests", "examples", "benchmarks", "tools", "docs")
# What a file of modeling/ or tokenization/ may import: it is copied beside the weights and must run there alone.
REMOTE_CODE_IMPORTS = {"huggingface_hub", "numpy", "safetensors", "torch", "transformers"}
# Import name -> distribution, where the two differ.
DISTRIBUTIONS = {
    "mpl_toolkits": "matplotlib",
    "sklearn": "scikit_learn",
    "xstatic": "xstatic_leaflet",
    "yaml": "PyYAML",
}

CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
MAPPED = dict(
    (part.strip() for part in line.split("=")) for line in CONFIG["options"]["package_dir"].strip().splitlines()
)
PACKAGES = CONFIG["options"]["packages"].split()


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[ast.AST, int, str]]:
    """(node, level, module) of every import statement, wherever it stands."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, node.level, node.module or ""


def guarded_lines(path: Path) -> set[int]:
    """Lines of the imports that a file can do without: those in `try: ... except ImportError`."""
    guarded = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Try) and any(
            ast.unparse(handler.type or node) == "ImportError" for handler in node.handlers
        ):
            guarded |= {
                inner.lineno for statement in node.body for inner in ast.walk(statement) if hasattr(inner, "lineno")
            }
    return guarded


def module_names() -> list[str]:
    """Every module that setup.cfg installs."""
    names = []
    for package in PACKAGES:
        folder = ROOT / MAPPED.get(package, package.replace(".", "/"))
        stems = sorted(path.stem for path in folder.glob("*.py"))
        names += [package if stem == "__init__" else f"{package}.{stem}" for stem in stems]
    return [name for name in names if not name.endswith("__main__")]


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_nobody_imports_the_top_level_folders() -> None:
    found = [
        f"{name_of(path)}:{node.lineno} {module}"  # type: ignore[attr-defined]
        for path in sources(*PACKAGE_FOLDERS, *OTHER_FOLDERS)
        for node, level, module in imports(path)
        if level == 0 and module.split(".")[0] in {"modeling", "tokenization"}
    ]
    assert not found, "import hf_mobility.modeling and hf_mobility.tokenization instead"


@pytest.mark.parametrize("folder", ["modeling", "tokenization"])
def test_remote_code_folders_are_flat(folder: str) -> None:
    nested = [name_of(path) for path in sources(folder) if path.parent != ROOT / folder]
    assert not nested


@pytest.mark.parametrize("path", sources("modeling", "tokenization"), ids=name_of)
def test_remote_code_files_import_only_what_a_copy_beside_the_weights_finds(path: Path) -> None:
    siblings = {other.stem for other in path.parent.glob("*.py")} - {"__init__"}
    allowed = REMOTE_CODE_IMPORTS | set(sys.stdlib_module_names)
    faults, guarded = [], guarded_lines(path)
    for node, level, module in imports(path):
        line = f"line {node.lineno}: {'.' * level}{module}"  # type: ignore[attr-defined]
        optional = node.lineno in guarded  # type: ignore[attr-defined]
        if level == 0 and module.split(".")[0] not in allowed and not optional:
            faults.append(f"{line} is not one of the allowed packages")
        if level == 1 and module not in siblings:
            faults.append(f"{line} is not a file of this folder (write `from .file import name`)")
        if level > 1:
            faults.append(f"{line} leaves the folder")
    assert not faults


@pytest.mark.parametrize("path", sources("modeling", "tokenization"), ids=name_of)
def test_remote_code_files_have_no_import_that_transformers_would_misread(path: Path) -> None:
    """transformers finds siblings with a regular expression: docstrings and TYPE_CHECKING blocks count as code."""
    text = path.read_text(encoding="utf-8")
    seen = set(re.findall(r"^\s*import\s+\.(\S+)\s*$", text, flags=re.MULTILINE))
    seen |= set(re.findall(r"^\s*from\s+\.(\S+)\s+import", text, flags=re.MULTILINE))
    real = {module for _, level, module in imports(path) if level == 1}
    assert seen == real


def declared_names(text: str) -> set[str]:
    return {name.lower().replace("-", "_") for name in re.findall(r"^[\w-]+", text.strip(), flags=re.MULTILINE)}


def test_third_party_imports_are_declared_requirements() -> None:
    required = declared_names(CONFIG["options"]["install_requires"])
    optional = set().union(*(declared_names(text) for text in CONFIG["options.extras_require"].values()))
    faults = []
    for path in sources(*PACKAGE_FOLDERS):
        at_import_time = {node.lineno for node in tree_of(path).body}
        for node, level, module in imports(path):
            name = module.split(".")[0]
            if level or name in sys.stdlib_module_names or name == "hf_mobility":
                continue
            name = DISTRIBUTIONS.get(name, name).lower()
            line = node.lineno  # type: ignore[attr-defined]
            if name not in required and (name not in optional or line in at_import_time):
                faults.append(f"{name_of(path)}:{line} {name}")
    assert not faults, "declare it in install_requires, or in an extra and import it inside the function"


@pytest.mark.parametrize("path", sources(*PACKAGE_FOLDERS), ids=name_of)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    faults = []
    for node, _, module in imports(path):
        if module.split(".")[0] in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}:
            faults.append(f"line {node.lineno}: import {module}")  # type: ignore[attr-defined]
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        of_weights = called == "torch.load" and "weights_only=True" in map(ast.unparse, node.keywords)
        if of_weights and name_of(path) == "hf_mobility/hub/convert.py":
            continue  # checkpoints of the systems' authors
        if called in {"eval", "exec", "compile", "__import__", "torch.load", "torch.save"}:
            faults.append(f"line {node.lineno}: {called}(...)")
        if called.endswith(("read_pickle", "to_pickle")):
            faults.append(f"line {node.lineno}: {called}(...)")
        for keyword in node.keywords:
            dangerous = keyword.arg in {"allow_pickle", "trust_remote_code"}
            if name_of(path) == "hf_mobility/hub/endpoint_handler.py" and keyword.arg == "trust_remote_code":
                continue  # runs at an endpoint, with the code of its own repository
            if dangerous and isinstance(keyword.value, ast.Constant) and keyword.value.value is True:
                faults.append(f"line {node.lineno}: {keyword.arg}=True")
    assert not faults


def test_torch_load_and_save_are_not_imported_by_name() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources(*PACKAGE_FOLDERS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.module == "torch"
        if {alias.name for alias in node.names} & {"load", "save"}
    ]
    assert not found


def test_library_code_configures_no_logging_and_no_global_seed() -> None:
    forbidden = {"logging.basicConfig", "np.random.seed", "numpy.random.seed", "random.seed", "torch.manual_seed"}
    found = []
    for path in sources(*PACKAGE_FOLDERS):
        # Seeding is right where the generator is a fork: the caller's own is restored afterwards.
        text = path.read_text(encoding="utf-8")
        forks = "torch.random.fork_rng(" in text or "with callers_random_state(" in text
        allowed = {"torch.manual_seed"} if forks else set()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden - allowed:
                found.append(f"{name_of(path)}:{node.lineno} {ast.unparse(node.func)}")
    assert not found


@pytest.mark.parametrize("name", module_names())
def test_every_class_says_that_it_lives_in_hf_mobility(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__name__ == name
    source = inspect.getsource(module)
    own = re.findall(r"^class (\w+)", source, flags=re.MULTILINE)
    for class_name in own:
        assert vars(module)[class_name].__module__ == name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each import starts from the same state, which needs a fork")
def test_a_model_file_can_be_the_first_thing_imported() -> None:
    """Registration with the Auto classes happens during such an import, when the file is only half there.

    Each is imported in a process of its own that has torch and the lazy face of transformers, and nothing of ours.
    """
    names = [name for name in module_names() if re.match(r"hf_mobility\.(mod|tok)\w+\.", name)]
    assert len(names) > 30
    code = f"""
import importlib, os, sys, traceback
import huggingface_hub, numpy, torch, transformers
assert not [name for name in sys.modules if name.startswith(("hf_mobility", "transformers.models.auto.modeling"))]
for name in {names}:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            print(name, traceback.format_exc(), flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name, flush=True)
print("all tried")
"""
    assert run_python(code) == "all tried\n"


def test_a_class_reached_by_two_ways_is_the_same_object() -> None:
    for name in hf_mobility.__all__:
        value = getattr(hf_mobility, name)
        if inspect.isclass(value):
            assert value.__module__.startswith("hf_mobility.")
            assert getattr(importlib.import_module(value.__module__), value.__name__) is value


def test_public_names_are_few_and_exist() -> None:
    assert len(hf_mobility.__all__) == len(set(hf_mobility.__all__)) <= 45
    for name in hf_mobility.__all__:
        assert hasattr(hf_mobility, name)


def test_import_touches_no_network_and_leaves_heavy_packages_alone() -> None:
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"import hf_mobility uses the network: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import hf_mobility
print(*sorted({"pandas", "matplotlib", "peft", "datasets", "scipy", "folium", "geopandas"} & set(sys.modules)))
"""
    assert run_python(code).split() == []


def test_import_configures_no_logging_and_no_threads() -> None:
    code = """
import logging, random
import numpy, torch
def state():
    drawn = random.getstate(), torch.random.get_rng_state().tolist(), numpy.random.get_state()[1].tolist()
    return logging.root.handlers[:], logging.root.level, torch.get_num_threads(), drawn
before = state()
import hf_mobility
print(before == state())
"""
    assert run_python(code).split() == ["True"]


def test_setup_cfg_lists_the_folders_that_exist() -> None:
    found = {"hf_mobility", *(f"hf_mobility.{name}" for name in ("modeling", "tokenization"))}
    for path in (ROOT / "hf_mobility").rglob("__init__.py"):
        found.add(".".join(path.parent.relative_to(ROOT).parts))
    assert sorted(PACKAGES) == sorted(found)
    without_init = [
        name_of(path)
        for path in sources("hf_mobility")
        if not (path.parent / "__init__.py").is_file()  # such a folder would silently stay out of the wheel
    ]
    assert not without_init


def test_version_and_date_are_the_same_in_package_changelog_and_citation() -> None:
    assert CONFIG["metadata"]["version"] == "attr: hf_mobility.version.__version__"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", f"{hf_mobility.__version__} - {citation['date-released']}"]
    assert citation["version"] == hf_mobility.__version__


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "hf_mobility" / "py.typed").is_file()

"""The rules of docs/architecture.md about imports, read from the source: nothing is imported upwards or in a circle,
and the files of `modeling` and `tokenization` can lie in one folder."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FACE = "hf_mobility"
# From the bottom to the top. A folder (or module) imports from those below it, and from itself.
LAYERS = (
    ("version", "tokenization", "modeling"),
    ("data",),
    ("baselines", "evaluation", "flows", "plotting"),
    ("hub",),
    ("training", "pipelines", "scale"),
    ("checkpoints",),
    ("benchmark",),
    ("cli",),
)
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
LIBRARIES = {"huggingface_hub", "numpy", "safetensors", "torch", "transformers"}  # what remote code may need
OPTIONAL = {  # only to make a new city or new classes of movement, not to load one
    "hf_mobility.tokenization.conditions_mstar": {"kmedoids", "rapidfuzz"},
    "hf_mobility.tokenization.poi": {"scipy"},
    "hf_mobility.tokenization.table_files": {"pandas", "pyarrow"},
    "hf_mobility.tokenization.tables": {"pandas"},
}
BESIDE_EACH_OTHER = ("tokenization", "modeling")  # neither imports the other


def module_files() -> dict[str, Path]:
    """Every module of the package under the name it is imported by."""
    files = {}
    for folder, package in ((FACE, FACE), *((name, f"{FACE}.{name}") for name in BESIDE_EACH_OTHER)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            files[".".join((package, *parts)).removesuffix(".__init__")] = path
    return files


FILES = module_files()


def imported(module: str) -> Iterator[tuple[str, int]]:
    """Modules of the package that a module imports anywhere, also inside functions, and the lines; not those that only
    type checkers see."""
    path = FILES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            inside = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else source for name in inside]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == FACE)


IMPORTS = {module: sorted(set(imported(module)), key=lambda found: found[1]) for module in FILES}


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_folder_has_its_layer() -> None:
    assert {folder_of(module) for module in FILES} - {""} <= set(LEVEL)


@pytest.mark.parametrize("module", [module for module in FILES if module != FACE])
def test_nothing_is_imported_upwards(module: str) -> None:
    own = folder_of(module)
    for target, line in IMPORTS[module]:
        assert target != FACE, f"{FILES[module]}:{line} imports the face; import from the module itself"
        folder = folder_of(target)
        beside = folder != own and {folder, own} == set(BESIDE_EACH_OTHER)
        assert LEVEL[folder] <= LEVEL[own] and not beside, f"{FILES[module]}:{line} imports {target} from above"


def test_nothing_is_imported_in_a_circle() -> None:
    """Modules without an unread import are taken away until none is left; what stays leads round in a circle."""
    left = {module: {target for target, _ in found if target != module} for module, found in IMPORTS.items()}
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"these modules import one another: {sorted(left)}"


def test_names_are_unique_over_both_folders_of_remote_code() -> None:
    names = Counter(path.name for name in BESIDE_EACH_OTHER for path in (ROOT / name).rglob("*.py"))
    del names["__init__.py"]
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("module", [module for module in FILES if folder_of(module) in BESIDE_EACH_OTHER])
def test_remote_code_imports_little_and_its_siblings_by_name(module: str) -> None:
    """`transformers` copies the siblings that stand in `from .file import name`; whoever loads them may have no more
    than the libraries named here."""
    allowed = LIBRARIES | sys.stdlib_module_names | OPTIONAL.get(module, set())
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        where = f"{FILES[module]}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module, f"{where} imports no sibling by name"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                top = str(name).split(".")[0]
                assert top in allowed, f"{where} imports {name}"

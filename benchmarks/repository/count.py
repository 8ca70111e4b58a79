"""Size and shape of the package and its texts, of one or several checkouts side by side.

    git worktree add ../before COMMIT
    python -m benchmarks.repository.count before=../before after=. --output benchmarks/repository/results/counts.csv

Words per sentence are those of prose: code blocks, tables, headings and links' targets do not count.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks.tables import save_table

CODE = ("hf_mobility", "modeling", "tokenization")


def sources(root: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def function_lengths(paths: list[Path]) -> list[int]:
    """Lines of each function, its decorators left out."""
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return [
        node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef) and node.end_lineno
    ]


def imported_modules(root: Path) -> dict[str, set[str]]:
    """Module of the package -> modules of the package that it imports anywhere but for type checkers."""
    names = {module_name(root, path): path for path in sources(root, *CODE)}
    return {name: set(imports_of(path, name, names)) for name, path in names.items()}


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    parts = parts if parts[0] == "hf_mobility" else ("hf_mobility", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, name: str, names: dict[str, Path]) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in typing_only:
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        target = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
        for alias in node.names:
            found = f"{target}.{alias.name}" if f"{target}.{alias.name}" in names else target
            if found in names and found != name:
                yield found


def cyclic_modules(imports: dict[str, set[str]]) -> int:
    """How many modules reach themselves by their imports."""

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            new = imports.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    return sum(name in reached(name) for name in imports)


def public_names(root: Path) -> int:
    """Names that `from hf_mobility import ...` offers, the version left out."""
    program = "import hf_mobility; print(len(hf_mobility.__all__) - 1)"
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    return int(found.stdout)


def prose(text: str) -> str:
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|    |<)", line)]
    return re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))


def sentences(text: str) -> list[int]:
    """Words of each sentence; a list item or a paragraph ends one."""
    parts = re.split(r"(?<=[.!?:])\s+(?=[A-Z`*\[])|\n\s*\n|\n\s*[-*] |\n\s*\d+\. ", prose(text))
    return [count for count in (len(part.split()) for part in parts) if count >= 3]


def counts(root: Path) -> dict[str, float]:
    code = sources(root, *CODE)
    lengths = function_lengths(code)
    imports = imported_modules(root)
    face = [name for name, targets in imports.items() if "hf_mobility" in targets]
    pages = {"README": [root / "README.md"], "docs": sorted((root / "docs").rglob("*.md"))}
    words = {name: [n for page in paths for n in sentences(page.read_text())] for name, paths in pages.items()}
    return {
        "files of the package": len(code),
        **{f"files of {folder}": len(sources(root, folder)) for folder in CODE},
        "lines of the package": sum(len(path.read_text().splitlines()) for path in code),
        "files of examples": len(sources(root, "examples")),
        "public names": public_names(root),
        "modules that import the face": len(face),
        "modules in an import cycle": cyclic_modules(imports),
        "lines of a function, median": median(lengths),
        "lines of a function, 90th percentile": sorted(lengths)[int(0.9 * len(lengths))],
        "lines of a function, longest": max(lengths),
        "lines of README": len((root / "README.md").read_text().splitlines()),
        **{f"words a sentence, {name}": round(sum(n) / len(n), 1) for name, n in words.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    columns = {name: counts(Path(folder)) for name, _, folder in (text.partition("=") for text in options.checkouts)}
    table = pd.DataFrame(columns).rename_axis("what").reset_index()
    print(table.to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()

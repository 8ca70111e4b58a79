"""Hooks of mkdocs: what lies outside `docs/` becomes a page of the site, and links between the two lead there.

README, model card, cards of checkpoints and the like stay where people look for them in a repository. Notebooks are
shown with the outputs that are stored in them. A link to any other file of the repository becomes plain text, because
the site does not hold it. `mkdocs.yml` names this file; `make docs` builds the site.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
BADGE = re.compile(r"^!\[[^\]]*\]\(https?://[^)]*\)\n", flags=re.MULTILINE)  # pictures that a browser would load
SKIPPED = ' title="skip"'  # said to the tests of the code blocks


def outside() -> dict[str, str]:
    """Path in the repository -> page of the site."""
    pages = {"README.md": "first_steps.md", "examples/accelerate/README.md": "how-to/accelerate.md"}
    pages |= {f"{name}.md": f"project/{name.lower()}.md" for name in ("MODEL_CARD", "CONTRIBUTING", "CHANGELOG")}
    pages |= {"SECURITY.md": "project/security.md"}
    for card in sorted((ROOT / "checkpoints").glob("*/README.md")):
        pages[card.relative_to(ROOT).as_posix()] = f"checkpoints/{card.parent.name}.md"
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        pages[notebook.relative_to(ROOT).as_posix()] = f"notebooks/{notebook.stem}.md"
    return pages


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages, and the pictures of the notebooks."""
    from mkdocs.structure.files import File

    for source, page in outside().items():
        if source.endswith(".ipynb"):
            text, pictures = notebook_page(ROOT / source)
            for name, content in pictures.items():
                files.append(File.generated(config, f"notebooks/{name}", content=content))
        else:
            text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by their names in it."""
    from nbconvert import MarkdownExporter

    prefix = f"{path.stem}_files"
    text, resources = MarkdownExporter().from_filename(str(path), resources={"output_files_dir": prefix})
    return text, {PurePosixPath(name).as_posix(): content for name, content in resources["outputs"].items()}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links from where the source lies in the repository to where the page lies in the site."""
    pages = outside()
    sources = {made: source for source, made in pages.items()}
    here = page.file.src_uri
    source = sources.get(here, f"docs/{here}")

    def moved(found: re.Match[str]) -> str:
        target, sharp, anchor = found["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target) or (source.endswith(".ipynb") and found["image"]):
            return found[0]
        path = normpath(f"{PurePosixPath(source).parent}/{target}")
        at = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if at is None:
            return found["text"]
        return f"{found['image']}[{found['text']}]({relpath(at, PurePosixPath(here).parent)}{sharp}{anchor})"

    return LINK.sub(moved, BADGE.sub("", markdown.replace(SKIPPED, "")))

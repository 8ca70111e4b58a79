"""README and docs: links lead somewhere, sentences are short, pages are short, and commands exist.

Measured as in benchmarks/repository/count.py: code blocks, tables, headings and targets of links are no prose.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.fill_results import fill
from benchmarks.repository.count import prose, sentences
from hf_mobility.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
CARDS = sorted((ROOT / "checkpoints").glob("*/README.md"))
TEXTS = [*sorted(ROOT.glob("*.md")), *DOCS, *CARDS, *sorted((ROOT / "examples").rglob("*.md"))]
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
README_LINES, PAGE_LINES = 120, 300
LONGEST_SENTENCE, MEAN_SENTENCE, LONGEST_PARAGRAPH = 25, 20, 80  # words
LONGEST_CELL = 200  # characters


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def paragraphs(text: str) -> list[int]:
    """Words of each paragraph or list item."""
    return [len(part.split()) for part in re.split(r"\n\s*\n|\n\s*[-*] |\n\s*\d+\. ", prose(text))]


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for found in LINK.finditer(text_of(page)):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)}: {found['target']}"
        if anchor:
            assert anchor in anchors(text_of(path)), f"{name_of(page)}: {found['target']}"


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs/index.md"
    linked = {(index.parent / found["target"]).resolve() for found in LINK.finditer(text_of(index))}
    assert [name_of(page) for page in DOCS if page != index and page not in linked] == []
    assert index in {(ROOT / found["target"].split("#")[0]).resolve() for found in LINK.finditer(text_of(README))}


@pytest.mark.parametrize("page", [README, *DOCS], ids=name_of)
def test_pages_sentences_paragraphs_and_cells_of_tables_are_short(page: Path) -> None:
    text = text_of(page)
    words = sentences(text)
    assert len(text.splitlines()) <= (README_LINES if page == README else PAGE_LINES)
    assert max(words) <= LONGEST_SENTENCE
    assert sum(words) / len(words) <= MEAN_SENTENCE
    assert max(paragraphs(text)) <= LONGEST_PARAGRAPH
    cells = [cell for line in text.splitlines() if line.startswith("|") for cell in line.strip("|").split("|")]
    assert max(map(len, cells), default=0) <= LONGEST_CELL


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_texts_say_what_things_are(page: Path) -> None:
    text = text_of(page)
    assert "Unusual:" not in text and "What is unusual" not in text


@pytest.mark.parametrize("page", [README, *DOCS, *CARDS], ids=name_of)
def test_tables_are_those_of_the_committed_results(page: Path) -> None:
    assert fill(text_of(page)) == text_of(page)


def test_commands_in_the_docs_exist_with_their_options() -> None:
    lines = {line.split("#")[0] for page in [README, *DOCS] for line in text_of(page).splitlines()}
    commands = [line.split() for line in lines if line.startswith("    hf-mobility ")]
    assert len(commands) >= 10
    for _, command, *arguments in commands:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, command
        for option in (argument for argument in arguments if argument.startswith("-")):
            assert re.search(rf"(^|[\s,]){re.escape(option)}\b", shown.output), f"{command} has no option {option}"

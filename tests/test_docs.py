"""README, docs, cards, notebooks: links lead somewhere, sentences are short, pages are short, and commands exist.

Code blocks, tables, headings, front matter and targets of links are no prose.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.fill_results import BLOCKS, MARK, fill
from benchmarks.pages import common
from hf_mobility.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
CARDS = sorted((ROOT / "checkpoints").glob("*/README.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = [*sorted(ROOT.glob("*.md")), *DOCS, *CARDS, *sorted((ROOT / "examples").rglob("*.md")), *NOTEBOOKS]
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", flags=re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
README_LINES, PAGE_LINES = 120, 300
LONGEST_SENTENCE, MEAN_SENTENCE, LONGEST_PARAGRAPH = 25, 20, 80  # words
LONGEST_CELL = 200  # characters
RESULTS = sorted(common.RESULTS.rglob("*.csv"))
WRITTEN_BESIDE = {"curve_pairs", "transfer_seed1_pairs"}  # by the commands that write `curve` and `transfer_seed1`
WRITES = {"--output", "--report", "--save", "--update"}
COMMAND = r"`(python -m benchmarks\.[^`]+)`"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    """A page; of a notebook the cells that are text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(lines) for lines in cells)


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def prose(text: str) -> str:
    text = re.sub(r"```.*?```|<!--.*?-->", "", FRONT_MATTER.sub("", text), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|    |<)", line)]
    return re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))


def sentences(text: str) -> list[int]:
    """Words of each sentence; a list item or a paragraph ends one."""
    parts = re.split(r"(?<=[.!?:])\s+(?=[A-Z`*\[])|\n\s*\n|\n\s*[-*] |\n\s*\d+\. ", prose(text))
    return [count for count in (len(part.split()) for part in parts) if count >= 3]


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


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_pages_sentences_paragraphs_and_cells_of_tables_are_short(page: Path) -> None:
    text = FRONT_MATTER.sub("", text_of(page))
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


def test_every_committed_result_is_read_by_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    read, opened = pd.read_csv, set()
    monkeypatch.setattr(pd, "read_csv", lambda path, **options: opened.add(Path(path)) or read(path, **options))
    for page in [README, *DOCS, *CARDS]:
        for found in MARK.finditer(text_of(page)):
            BLOCKS[found["name"]]()
    assert {path.stem for path in RESULTS if path not in opened} <= WRITTEN_BESIDE


def options_of(command: str) -> dict[str, list[str]]:
    """Option -> its values; what is written and where is left out."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in shlex.split(command):
        if word.startswith("--"):
            name = word
            found[name] = []
        else:
            found[name].append(word)
    return {name: values for name, values in found.items() if name not in WRITES}


def test_commands_of_the_results_pages_are_those_of_the_committed_tables() -> None:
    firsts = [text_of(path).partition("\n")[0].removeprefix("# ") for path in RESULTS]
    made = [command for first in firsts for command in first.split("; ") if command.startswith("python -m benchmarks.")]
    made += [command for card in CARDS for command in re.findall(COMMAND, text_of(card))]
    known = []
    for command in made:
        try:
            known.append(options_of(command))
        except ValueError:
            continue  # a command with words between its parts
    named = [
        (name_of(page), command)
        for page in DOCS
        for command in re.findall(COMMAND, text_of(page))
        if page.parent.name == "results" and "fill_results" not in command
    ]
    assert len(named) >= 20
    assert [(page, command) for page, command in named if options_of(command) not in known] == []


def test_the_card_of_a_generator_has_one_result_of_its_own_and_the_figures_of_its_table() -> None:
    text = text_of(ROOT / "checkpoints/mstar-cells-small/README.md")
    (entry,) = yaml.safe_load(text.split("---\n")[1])["model-index"]
    results = [one for one in entry["results"] if one["dataset"]["type"] != "weeks-simulated-simulated"]  # a protocol's
    metrics = [metric for result in results for metric in result["metrics"] if metric["type"] == "mean6"]
    shown = dict(re.findall(r"^\| \**([^|*]+?)\** \|(?:[^|]*\|){6} ([\d.]+)", text, flags=re.MULTILINE))
    own = [metric["name"] for metric in metrics if "baseline" not in metric["name"]]
    assert [name.partition(": ")[2] for name in own] == ["M-STAR mstar-cells-small"]
    for metric in metrics:
        model = metric["name"].partition(": ")[2].removeprefix("baseline ")
        assert f"{1000 * metric['value']:.1f}" == shown[model], model


def test_commands_in_the_docs_exist_with_their_options() -> None:
    lines = {line.split("#")[0] for page in [README, *DOCS] for line in text_of(page).splitlines()}
    commands = [line.split() for line in lines if line.startswith("    hf-mobility ")]
    assert len(commands) >= 10
    for _, command, *arguments in commands:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, command
        for option in (argument for argument in arguments if argument.startswith("-")):
            assert re.search(rf"(^|[\s,]){re.escape(option)}\b", shown.output), f"{command} has no option {option}"

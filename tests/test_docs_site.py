"""The documentation as a site: every page is in its navigation, API pages name what exists, and it builds strictly.

What was built is read as a browser would: every link leads to a file and a heading, and nothing is loaded from
elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tools.docs_site import on_page_markdown, outside

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
IDENTIFIER = re.compile(r"^::: (\S+)$", flags=re.MULTILINE)
AREAS = ("", ".baselines", ".benchmark", ".data", ".evaluation", ".flows", ".plotting")
LOADED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}


def pages_of(nav: Any) -> Iterator[str]:
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(value, str):
            yield value
        else:
            yield from pages_of(value)


def identifiers() -> list[str]:
    return [name for page in sorted((DOCS / "api").glob("*.md")) for name in IDENTIFIER.findall(page.read_text())]


def test_every_page_stands_once_in_the_navigation() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | set(outside().values())
    named = list(pages_of(CONFIG["nav"]))
    assert sorted(named) == sorted(pages)


def test_what_an_api_page_names_exists() -> None:
    names = identifiers()
    assert len(names) == len(set(names)) > 100
    for name in names:
        installed = re.sub(r"^(modeling|tokenization)\.", r"hf_mobility.\1.", name)
        module, _, attribute = installed.rpartition(".")
        made = getattr(import_module(module), attribute)
        assert made.__module__ == module, f"{name} is defined in {made.__module__}"


def test_every_public_name_is_on_an_api_page() -> None:
    shown = {name.rpartition(".")[2] for name in identifiers()}
    for area in AREAS:
        public = set(import_module(f"hf_mobility{area}").__all__) - {"__version__"}
        assert not public - shown, area


MOVED = [
    ("first_steps.md", "[a](docs/how-to/train.md#x)", "[a](how-to/train.md#x)"),
    ("first_steps.md", "[a](MODEL_CARD.md)", "[a](project/model_card.md)"),
    ("how-to/train.md", "[a](../../examples/accelerate/README.md)", "[a](accelerate.md)"),
    ("scale.md", "[ddp](../examples/accelerate/ddp.yaml), [b](#c)", "ddp, [b](#c)"),
    ("scale.md", "[a](https://e.org)", "[a](https://e.org)"),
    ("index.md", "![A](https://img.org/a)\n![B](img/b.png)", "![B](img/b.png)"),
    ("index.md", '```python title="skip"', "```python"),
]


@pytest.mark.parametrize(("page", "text", "wanted"), MOVED)
def test_links_between_repository_and_pages_lead_to_pages(page: str, text: str, wanted: str) -> None:
    class Page:
        class file:
            src_uri = page

    assert on_page_markdown(text, page=Page) == wanted


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings", "nbconvert"):
        pytest.importorskip(package, reason="the site is built with the extra `docs`")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


class Parts(HTMLParser):
    """Anchors, links and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and given.get("rel") not in ("canonical", "prev", "next") and LOADED[tag] in given:
            self.loaded.append(given[LOADED[tag]])


@pytest.mark.slow
def test_links_of_the_built_site_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path: Parts(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    for path, parts in pages.items():
        where = path.relative_to(site)
        for target in (*parts.links, *parts.loaded):
            url = urlsplit(target)
            if url.scheme == "data" or (url.scheme and target in parts.links):
                continue
            assert not url.scheme and not url.netloc, f"{where} loads {target}"
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            assert file.exists() and file.is_relative_to(site.resolve()), f"{where}: {target}"
            if url.fragment and file in pages:
                assert unquote(url.fragment) in pages[file].anchors | {"__skip"}, f"{where}: {target}"


@pytest.mark.slow
def test_api_pages_show_arguments_and_examples(site: Path) -> None:
    text = (site / "api/pipelines.html").read_text(encoding="utf-8")
    assert "<code>top_k</code>" in re.sub(r"<b>|</b>|<strong>|</strong>", "", text)
    assert "&gt;&gt;&gt;" in text and "<blockquote>" not in text

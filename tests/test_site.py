"""The pages of docs/ lead to each other, and are built into a site without a warning."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from documented import FENCED, PAGES, ROOT

LINK = re.compile(r"\]\((?!https?:)([^)\s]+)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def text(path: Path) -> str:
    """A page without its fenced blocks."""
    return FENCED.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as sites and forges make them."""
    titles = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in HEADING.findall(text(path)))
    return {re.sub(r"\s+", "-", title) for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_and_headings(page):
    for link in LINK.findall(text(PAGES[page])):
        target, _, anchor = link.partition("#")
        path = (PAGES[page].parent / target).resolve() if target else PAGES[page]
        assert path.is_relative_to(ROOT), link
        assert path.is_file(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_that_is_named_is_a_link(page):
    """A name alone is no way to get there, and `docs/` before it is none of the site's."""
    others = {Path(other).name for other in PAGES if other.startswith("docs/")}
    around = re.sub(r"\[[^]]*\]\([^)]*\)", "", text(PAGES[page]))
    assert not others & set(re.findall(r"(?<![\w/])(?:docs/)?(\w+\.md)\b", around))


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r"^ +- (?:[\w ]+: )?(\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(["index.md", *(Path(page).name for page in PAGES if page.startswith("docs/"))])


class Links(HTMLParser):
    """What a page loads and where it leads."""

    def __init__(self, path: Path):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (tag == "link" and name == "href"):
                self.loaded.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def test_the_site_is_built_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (extra docs)")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("index.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        links = Links(page)
        assert not [url for url in links.loaded if url.startswith(("http:", "https:", "//"))]  # it reaches for nothing
        for url in [*links.loaded, *links.links]:
            target = url.partition("#")[0]
            if target and not target.startswith("http"):
                path = (page.parent / target).resolve()
                assert path.is_file() or (path / "index.html").is_file(), f"{page}: {url}"

"""What mkdocs does before it builds the site: README.md becomes its first page, and what that and the pages of docs/
link to outside docs/ becomes a page too, so that every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
ABOVE = "../"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def first_page(readme: str) -> str:
    """README.md as it reads in docs/: links to pages there are links to its neighbours."""
    return LINK.sub(lambda link: f"]({link[1].removeprefix('docs/')}", readme)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    readme = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=first_page(readme)))
    linked = {target for target in LINK.findall(readme) if not target.startswith("docs/")}
    for page in Path(config.docs_dir).glob("*.md"):
        linked |= {target.removeprefix(ABOVE) for target in LINK.findall(page.read_text()) if target.startswith(ABOVE)}
    for target in sorted(linked):
        outside = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target), inclusion=outside))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """What lies beside docs/ lies in the site's root."""
    return LINK.sub(lambda link: f"]({link[1].removeprefix(ABOVE)}", markdown)

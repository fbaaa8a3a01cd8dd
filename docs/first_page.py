"""What mkdocs does before it builds the site: README.md becomes its first page, and what that links to outside docs/
becomes a page too, so that every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def first_page(readme: str) -> str:
    """README.md as it reads in docs/: links to pages there are links to its neighbours."""
    return LINK.sub(lambda link: f"]({link[1].removeprefix('docs/')}", readme)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    readme = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=first_page(readme)))
    for target in sorted(set(LINK.findall(readme))):
        if not target.startswith("docs/"):
            outside = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, target, abs_src_path=str(ROOT / target), inclusion=outside))
    return files

"""Links that leave this folder: figures come along, other files are named by their path.

The pages are read in the repository too, where such links lead to examples, tests and rows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    folder = (DOCS / page.file.src_uri).parent

    def to(place: Path) -> str:
        return Path(os.path.relpath(place, folder)).as_posix()

    def inside(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        found = (folder / target.partition("#")[0]).resolve()
        if "://" in target or found.is_relative_to(DOCS):
            return match[0]
        if not found.exists() or not found.is_relative_to(ROOT):
            raise PluginError(f"{page.file.src_uri}: there is no {target}")
        path = found.relative_to(ROOT).as_posix()
        if path == "README.md":
            return f"[{text}]({to(DOCS / 'index.md')})"
        if mark:
            name = f"figures/{path.replace('/', '-')}"
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(found)))
            return f"![{text}]({to(DOCS / name)})"
        return f"`{path}`" if text.strip("`") == found.name else f"{text} (`{path}`)"

    return LINK.sub(inside, markdown)

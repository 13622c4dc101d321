"""Make the README fit for a package index, where a relative link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def readable_anywhere(text: str, repository: str | None) -> str:
    """Replace relative links.

    Args:
        text: the README.
        repository: the address of the repository. Links lead into its branch ``main``; without an
            address, only their words are left.
    """

    def replaced(link: re.Match[str]) -> str:
        image, words, target = link.groups()
        if repository is None:
            return "" if image else words
        return f"{image}[{words}]({repository}/{'raw' if image else 'blob'}/main/{target})"

    return _RELATIVE_LINK.sub(replaced, text)


class ReadmeHook(MetadataHookInterface):
    """Hands the README to the build."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme; ``Repository`` in ``[project.urls]`` is the repository's address."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = readable_anywhere(text, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}

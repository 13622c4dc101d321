"""The README on a package index, where a relative link leads nowhere."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
URLS = '\n[project.urls]\nRepository = "https://example.org/sidelight"\n'


@pytest.mark.parametrize(
    ("urls", "leads_to"),
    [("", set()), (URLS, {"https://example.org/sidelight"})],
    ids=["no address", "address"],
)
def test_the_readme_of_the_package(tmp_path, urls, leads_to):
    core = pytest.importorskip("hatchling.metadata.core", reason="pip install -e '.[test]'")
    manager = pytest.importorskip("hatchling.plugin.manager")
    for name in ("pyproject.toml", "README.md", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write(urls)
    readme = core.ProjectMetadata(str(tmp_path), manager.PluginManager()).core.readme
    source = (ROOT / "README.md").read_text()
    targets = [each for each in re.findall(r"\]\(([^)]+)\)", readme) if each[0] != "#"]
    assert {re.split("/(?:blob|raw)/main/", each)[0] for each in targets} == leads_to
    relative = re.findall(r"\]\((?!\w+:|#)([^)]+)\)", source)
    assert len(relative) > 10
    assert len(targets) == (len(relative) if urls else 0)
    assert len(readme.splitlines()) == len(source.splitlines())
    for target in targets:
        assert (ROOT / re.split("/(?:blob|raw)/main/", target)[1].partition("#")[0]).exists()

import tomllib
from pathlib import Path

import yaml

import dgs_lightning

ROOT = Path(__file__).parents[1]
AUTHORS = ["Li", "Li", "Ye", "Mao", "Ogawa", "Plataniotis", "Haseyama"]


def test_the_citation_is_of_this_version_and_prefers_the_paper_that_the_readme_names() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] == dgs_lightning.__version__
    assert citation["license"] == project["license"]
    paper = citation["preferred-citation"]
    assert f"*{paper['title']}*" in " ".join((ROOT / "README.md").read_text().split())
    assert [author["family-names"] for author in paper["authors"]] == AUTHORS

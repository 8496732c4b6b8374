from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.readme import CITATION, README, features, readme
from dgs_lightning.data.records import ImageRecord, read_manifest
from dgs_lightning.data.writing import write_set

ROOT = Path(__file__).parents[2]
PATCHES = [{"source": "a.png", "box": [0, 0, 4, 4]}]
RECORDS = [
    ImageRecord("dog/1.png", "dog", "Hund", 0, seed=2**63 - 1, difficulty=0.5, extra={"patches": PATCHES}),
    ImageRecord("cat/1.png", "cat", "Katze", 0, seed=3, extra={"patches": PATCHES, "right": True, "share": 1}),
    ImageRecord("cat/2.png", "cat", "Katze", 1, seed=4, extra={"patches": PATCHES, "right": False, "share": 0.5}),
]
CARD = {
    "name": "dag-ipc1",
    "kind": "distilled",
    "settings": {"method": "dgs", "ipc": 1},
    "versions": {"dgs-lightning": "9.9"},
    "provenance": [{"role": "pool", "folder": "dit", "card": {"name": "dit", "kind": "pool", "provenance": ["a DiT"]}}],
    "licences": ["ImageNet terms of access", "CC BY-NC 4.0"],
}


def written(folder: Path, card: dict[str, Any] = CARD) -> Path:
    for record in RECORDS:
        (folder / "source" / record.label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * (record.index or 0)).save(folder / "source" / record.file_name)
    write_set(folder / "source", RECORDS, folder / "set", card)
    return folder / "set"


def test_datasets_loads_the_folder_with_class_labels_and_all_columns_of_the_manifest(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets, of the extra dev, is not installed")
    folder = written(tmp_path)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"] == datasets.ClassLabel(names=["cat", "dog"])
    records = read_manifest(folder)
    assert [row["label"] for row in loaded] == [0, 0, 1] == [["cat", "dog"].index(r.label) for r in records]
    assert [row["image"].getpixel((0, 0)) for row in loaded] == [0, 10, 0]
    for row, record in zip(loaded, records, strict=True):
        assert (row["class_name"], row["seed"], row["difficulty"]) == (
            record.class_name,
            record.seed,
            record.difficulty,
        )
        assert [row["patches"], row["right"], row["share"]] == [
            PATCHES,
            record.extra.get("right"),
            record.extra.get("share"),
        ]


def test_the_readme_says_how_the_set_was_made_and_under_which_terms(tmp_path: Path) -> None:
    text = (written(tmp_path) / README).read_text()
    for part in (
        "# dag-ipc1\n",
        "3 images of 2 classes, 1 to 2 of each",
        "selected by the rule `dgs`",
        "  - pool: **dit**, pool\n    - a DiT",
        "ipc: 1",
        "- ImageNet terms of access\n- CC BY-NC 4.0",
        'load_dataset("FOLDER"',
        CITATION,
    ):
        assert part in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"
    assert str(tmp_path) not in text


def test_a_set_has_the_same_readme_each_time_and_a_pool_has_none(tmp_path: Path) -> None:
    folder = written(tmp_path)
    before, time = (folder / README).read_bytes(), (folder / README).stat().st_mtime_ns
    assert (written(tmp_path) / README).stat().st_mtime_ns == time
    (folder / README).unlink()  # as in a set of an earlier version
    assert (written(tmp_path) / README).read_bytes() == before == readme(read_card(folder), RECORDS).encode()
    assert not (written(tmp_path / "other", {**CARD, "kind": "pool"}) / README).exists()


def test_columns_have_the_types_of_their_values() -> None:
    kinds = {feature["name"]: feature for feature in features(RECORDS)}
    assert kinds["share"]["dtype"] == "float64"
    assert kinds["right"]["dtype"] == "bool"
    assert kinds["patches"]["list"] == [{"name": "source", "dtype": "string"}, {"name": "box", "list": "int64"}]
    large = [ImageRecord("a/1.png", "a", seed=2**63)]
    assert features(large)[2] == {"name": "seed", "dtype": "uint64"}


def test_the_citation_is_that_of_the_package() -> None:
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert paper["title"] in CITATION
    assert all(f"{author['family-names']}, {author['given-names']}" in CITATION for author in paper["authors"])

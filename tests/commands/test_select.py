import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.datasets import ImageFolder

from dgs_lightning.__main__ import main
from dgs_lightning.commands.select import select
from dgs_lightning.configs import ROOT, load_yaml
from dgs_lightning.data.cards import hash_json, read_card, write_card
from dgs_lightning.data.classes import class_list
from dgs_lightning.data.records import ImageRecord, read_manifest, write_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier

LABELS = ("n02086240", "mine")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A scored pool of 20 images a class."""
    folder, rng, records = tmp_path / "pool", default_rng(0), []
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for index in range(20):
            name = f"{label}/{index:05}.png"
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)
            records.append(ImageRecord(name, label, index=index, difficulty=float(rng.random()), estimator="net"))
    write_manifest(folder, records)
    write_card(folder, {"name": "pool", "kind": "pool", "licences": ["CC BY-NC 4.0"]})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_distilled_set_is_a_folder_that_others_can_read(pool: Path, tmp_path: Path) -> None:
    output = select(output=str(tmp_path / "distilled"), pool=str(pool), ipc=4)
    assert ImageFolder(output).classes == sorted(LABELS)
    records = read_manifest(output)
    assert [record.file_name for record in records] == sorted(p for p in contents(output) if p.endswith(".png"))
    assert {record.label: record.class_name for record in records} == {"n02086240": "Shih-Tzu", "mine": "mine"}
    assert all(contents(output)[r.file_name] == contents(pool)[r.file_name] for r in records)


def test_the_card_tells_settings_sources_and_hashes_without_paths(pool: Path, tmp_path: Path) -> None:
    output = select(output=str(tmp_path / "distilled"), pool=str(pool), original=str(pool), ipc=4)
    card = read_card(output)
    assert card["kind"] == "distilled"
    assert card["settings"]["smoothing"] == "paper"
    assert [source["role"] for source in card["provenance"]] == ["pool", "original"]
    assert card["licences"] == ["CC BY-NC 4.0"]
    report = json.loads((output / "selection.json").read_text())
    assert card["hashes"]["selection"] == hash_json(report)
    assert sum(report["classes"]["mine"]["smoothed"]["distilled"]["counts"]) == 4
    assert not [name for name, content in contents(output).items() if str(tmp_path).encode() in content]


def test_tensorboard_shows_the_difficulties_of_originals_pool_and_set(pool: Path, tmp_path: Path) -> None:
    output = select(output=str(tmp_path / "distilled"), pool=str(pool), original=str(pool), ipc=4, pool_images=10)
    events = EventAccumulator(str(output)).Reload()
    shown = {tag: events.Histograms(tag)[0].histogram_value for tag in events.Tags()["histograms"]}
    assert {tag: values.num for tag, values in shown.items()} == {
        "difficulty/original": 40,
        "difficulty/pool": 20,  # those that may be selected
        "difficulty/distilled": 8,
    }
    difficulties = [record.difficulty or 0 for record in read_manifest(output)]
    assert shown["difficulty/distilled"].sum == pytest.approx(sum(difficulties))


def test_the_card_and_the_report_say_which_features_are_compared(pool: Path, tmp_path: Path) -> None:
    network = ClassifierConfig("convnet1", LABELS, 8, 3, (0.5,) * 3, (0.25,) * 3, width=4, folds=5, fold=0)
    save_classifier(network.build(), network, tmp_path / "estimator")
    for features, what in (
        ("pixels", "32 x 32 thumbnails"),
        (str(tmp_path / "estimator"), "the network of fold 0 of 5"),
    ):
        output = select(output=str(tmp_path / "set"), pool=str(pool), ipc=4, method="herding", features=features)
        said = json.loads((output / "selection.json").read_text())["features"]
        assert what in said
        assert read_card(output)["settings"]["features"] == said
        assert not [name for name, content in contents(output).items() if str(tmp_path).encode() in content]


def test_a_pool_without_a_card_leaves_its_licence_open(pool: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    (pool / "metadata.jsonl").rename(scores / "metadata.jsonl")
    (pool / "dataset.json").unlink()
    write_card(scores, {"kind": "scores", "licences": [], "scoring": {"note": "not cross-fitted"}})
    card = read_card(select(output=str(tmp_path / "distilled"), pool=str(pool), pool_scores=str(scores), ipc=4))
    assert card["licences"] == ["as the source's"]
    assert {source["role"]: source["card"] for source in card["provenance"]} == {
        "pool": {},
        "pool_scores": {"kind": "scores", "licences": [], "scoring": {"note": "not cross-fitted"}},
    }


def test_the_same_seed_gives_the_same_bytes(pool: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "set", tmp_path / "b" / "set"
    for output in (one, two, one):
        select(output=str(output), pool=str(pool), ipc=4)
    assert contents(one) == contents(two)
    select(output=str(two), pool=str(pool), ipc=4, seed=1)
    assert contents(one) != contents(two)


def test_an_unreadable_image_is_not_written(pool: Path, tmp_path: Path) -> None:
    broken = pool / "mine" / "00003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(InputError, match=r"00003\.png"):
        select(output=str(tmp_path / "distilled"), pool=str(pool), ipc=20)
    assert not (tmp_path / "distilled").exists()


def test_the_command_line_selects(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "distilled"
    command = ["select", "--config=select/dgs", f"--pool={pool}", f"--output={output}", "--ipc=3"]
    assert main([*command, "--smoothing_forks.extremes=zero", "--distribution=[1,2,1]", "--intervals=3"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert json.loads((output / "selection.json").read_text())["smoothing"]["extremes"] == "zero"
    assert len(read_manifest(output)) == 6


def test_the_command_line_tells_what_is_wrong(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", f"--pool={pool}", f"--output={tmp_path / 'distilled'}", "--ipc=21"]) == 2
    assert "2 classes with fewer images than the IPC" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:smoothing found")  # the pool is too small for the preset released
@pytest.mark.parametrize("config", sorted((ROOT / "select").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_selects(config: Path, pool: Path, tmp_path: Path) -> None:
    settings = load_yaml(config)
    settings |= {} if "share" in settings else {"ipc": 3}
    output = select(output=str(tmp_path / "distilled"), pool=str(pool), **settings)
    assert len(read_manifest(output)) == (20 if "share" in settings else 6)


def scored_set(folder: Path, images: int, power: float) -> Path:
    """Ten classes with so many images each, whose difficulties are uniform to a power."""
    rng, records = default_rng(images), []
    for label, index in product(class_list("imagenette"), range(images)):
        records.append(ImageRecord(f"{label}/{index:02}.png", label, difficulty=rng.random() ** power, estimator="net"))
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(folder / records[-1].file_name)
    write_manifest(folder, records)
    return folder


def test_the_validation_sets_of_table_6_differ_on_50_images_a_class_and_scale_follows_the_originals(
    tmp_path: Path,
) -> None:
    val, train = scored_set(tmp_path / "val", 50, 2), scored_set(tmp_path / "train", 20, 0.5)
    sets = {"original": {record.file_name: record.difficulty or 0 for record in read_manifest(val)}}
    for name in ("random", "easy", "scale"):
        settings = {**load_yaml(ROOT / "select" / f"validation_{name}.yaml"), "original": str(train)}
        output = select(output=str(tmp_path / name), pool=str(val), **settings)
        sets[name] = {record.file_name: record.difficulty or 0 for record in read_manifest(output)}
        card = read_card(output)
        assert (card["settings"]["share"], set(card["images_per_class"].values())) == (0.5, {25})
    assert len({frozenset(found) for found in sets.values()}) == 4
    means = {name: np.mean([*found.values()]) for name, found in sets.items()}
    assert means["easy"] == min(means.values())
    assert means["scale"] == max(means.values())  # the originals are harder than the validation images

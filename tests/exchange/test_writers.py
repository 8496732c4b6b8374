import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dgs_lightning.__main__ import main
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.readme import README
from dgs_lightning.data.records import ImageRecord, read_manifest
from dgs_lightning.data.writing import write_set
from dgs_lightning.exchange.tables import CARD_KEY

LICENCE = "ImageNet terms of access: non-commercial research and education"
FILES = ("cat/a.png", "cat/b.png", "dog/a.png")


@pytest.fixture
def distilled(tmp_path: Path) -> Path:
    """Three images of 4 x 6 pixels in colour."""
    return write_images(tmp_path, (4, 6, 3))


def write_images(tmp_path: Path, shape: tuple[int, int, int]) -> Path:
    rng, source = np.random.default_rng(0), tmp_path / "source"
    for name in FILES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(source / name)
    records = [ImageRecord(name, name[:3], difficulty=0.1 * place) for place, name in enumerate(FILES)]
    card = {
        "name": "mine",
        "kind": "distilled",
        "labels": {"cat": "cat", "dog": "dog"},
        "licences": [LICENCE],
        "provenance": [{"role": "pool", "card": {}}],
    }
    write_set(source, records, tmp_path / "set", card)
    return tmp_path / "set"


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name)) for name in FILES])


def exported(folder: Path, form: str) -> Path:
    output = folder.parent / form
    assert main(["export", str(folder), "--to", form, "--output", str(output)]) == 0
    card = read_card(output)
    assert card == read_card(folder)  # with licences, provenance and hashes
    assert f"- {LICENCE}" in (output / README).read_text()
    (file,) = output.glob("set.*")
    return file


def test_datasets_reads_the_parquet_file_and_its_folder(distilled: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets, of the extra dev, is not installed")
    import pyarrow.parquet as pq

    file = exported(distilled, "parquet")
    by_folder = datasets.load_dataset(str(file.parent), split="train", cache_dir=str(tmp_path / "cache"))
    for loaded in (by_folder, datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))):
        assert loaded.features["label"] == datasets.ClassLabel(names=["cat", "dog"])
        assert (np.stack([np.asarray(row["image"]) for row in loaded]) == pixels(distilled)).all()
        assert (loaded["label"][:], loaded["difficulty"][:]) == ([0, 0, 1], [0.0, 0.1, 0.2])
    assert json.loads(pq.read_schema(file).metadata[CARD_KEY]) == read_card(distilled)


def test_webdataset_reads_the_tar_file(distilled: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset, of the extra dev, is not installed")
    file = exported(distilled, "webdataset")
    samples = list(webdataset.WebDataset(str(file), shardshuffle=False).decode("rgb8").to_tuple("png", "cls", "json"))
    assert (np.stack([image for image, _, _ in samples]) == pixels(distilled)).all()
    assert [number for _, number, _ in samples] == [0, 0, 1]
    assert [note["file_name"] for _, _, note in samples] == [r.file_name for r in read_manifest(distilled)]


def test_torch_reads_the_tensors_without_code(distilled: Path) -> None:
    content = torch.load(exported(distilled, "pt"), weights_only=True)
    assert content["images"].dtype == torch.float32
    assert (content["images"].permute(0, 2, 3, 1).mul(255).round().numpy() == pixels(distilled)).all()
    assert (content["labels"].tolist(), content["classes"]) == ([0, 0, 1], ["cat", "dog"])
    assert json.loads(content["card"])["licences"] == [LICENCE]


def test_numpy_reads_the_arrays_without_code(distilled: Path) -> None:
    with np.load(exported(distilled, "npz"), allow_pickle=False) as content:
        assert (content["images"] == pixels(distilled)).all()
        assert (content["labels"].tolist(), content["classes"].tolist()) == ([0, 0, 1], ["cat", "dog"])
        assert json.loads(str(content["card"]))["licences"] == [LICENCE]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SET", "--output=OUT"], "--to: found nothing, for the image set SET, expected --to parquet"),
        (["DIT", "--output=OUT", "--to=npz"], "--to: found npz, for DIT, which is no image set"),
        (["SET", "--output=OUT", "--to=npz", "--vae=x/y"], "--vae: found x/y, for the image set SET"),
        (["SET", "--output=OUT", "--to=npz", "--dit=DIT"], "--dit: found DIT, beside SET"),
        (["--output=OUT"], "found nothing to export, expected a set or a DiT"),
        (["SET", "--output=SET", "--to=npz"], "SET: found files, expected a folder that is new or empty"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    distilled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"SET": str(distilled), "DIT": str(tmp_path / "dit"), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
        message = message.replace(name, place)
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_of_several_sizes_are_no_tensor(distilled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (5, 5)).save(distilled / FILES[0])
    assert main(["export", str(distilled), "--to=npz", f"--output={distilled.parent / 'out'}"]) == 2
    assert "found images of several sizes (5 x 5, 6 x 4, ...), expected images of one size" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    distilled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dgs_lightning.exchange.writers.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    assert main(["export", str(distilled), "--to=webdataset", f"--output={distilled.parent / 'out'}"]) == 2
    assert "found no package webdataset" in (said := capsys.readouterr().err)
    assert "Run: pip install webdataset" in said


@pytest.mark.parametrize("form", ["parquet", "webdataset", "pt", "npz"])
def test_a_file_that_travels_alone_comes_back_with_images_licences_and_provenance(tmp_path: Path, form: str) -> None:
    for package in ("datasets", "pyarrow", "webdataset"):
        pytest.importorskip(package, reason=f"{package}, of the extra dev, is not installed")
    distilled, back = write_images(tmp_path, (4, 4, 3)), tmp_path / "back"
    file = exported(distilled, form)
    (tmp_path / "alone").mkdir()
    assert main(["import", str(file.rename(tmp_path / "alone" / file.name)), str(back)]) == 0
    found = [(record.label, np.asarray(Image.open(back / record.file_name))) for record in read_manifest(back)]
    assert [label for label, _ in found] == [name[:3] for name in FILES]
    assert (np.stack([image for _, image in found]) == pixels(distilled)).all()
    assert read_card(back)["licences"] == [LICENCE]
    assert read_card(back)["provenance"][0]["card"] == read_card(distilled)

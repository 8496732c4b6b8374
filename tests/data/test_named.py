"""Data sets by name: torchvision's classes read them, from files that are there, unpacked or downloaded."""

import contextlib
import gzip
import io
import re
import struct
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from dgs_lightning.__main__ import main
from dgs_lightning.commands.prepare import prepare
from dgs_lightning.configs import ROOT
from dgs_lightning.data import fetching
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import CLASS_LISTS, class_list
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.named import KNOWN
from dgs_lightning.doctor.images import check_named_set, open_trees
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import stage_keys
from dgs_lightning.experiment.work import inputs_of
from dgs_lightning.runs.fingerprints import fingerprints

CLASSES = {"Ankle boot", "Bag", "Coat", "Dress", "Pullover", "Sandal", "Shirt", "Sneaker", "T-shirt-top", "Trouser"}
SPLITS = ("train", "val")


def packed(folder: Path, counts: Sequence[int] = (3, 2), side: int = 28) -> Path:
    """The four files of MNIST's form, with so many images of each of ten classes for training and for testing."""
    folder.mkdir(parents=True)
    for name, count in zip(("train", "t10k"), counts, strict=True):
        labels = bytes(range(10)) * count
        pixels = np.random.default_rng(count).integers(256, size=(len(labels), side, side), dtype=np.uint8)
        with gzip.open(folder / f"{name}-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">4I", 2051, len(labels), side, side) + pixels.tobytes())
        with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">2I", 2049, len(labels)) + labels)
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no files of the user's, no packages of Debian."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetching, "DEBIAN", {"FashionMNIST": tmp_path / "debian"})
    monkeypatch.chdir(tmp_path)


def labels(folder: Path) -> list[set[str]]:
    return [{record.label for record in read_set(folder / split)} for split in SPLITS]


def test_fashion_mnist_is_read_from_debians_files(tmp_path: Path) -> None:
    packed(tmp_path / "debian")
    assert "10 classes" in prepare("fashion_mnist", "out")
    assert labels(tmp_path / "out") == [CLASSES, CLASSES]
    assert [len(read_set(tmp_path / "out" / split)) for split in SPLITS] == [30, 20]  # torchvision's own split
    card = read_card(tmp_path / "out" / "train")
    assert (card["name"], card["licences"], card["settings"]["channels"]) == ("fashion_mnist/train", ["MIT"], 1)
    assert "Xiao" in card["provenance"][0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train", "val"]  # nothing is left beside
    known = np.random.default_rng(3).integers(256, size=(30, 28, 28), dtype=np.uint8)
    with Image.open("out/train/Sneaker/000017.png") as image:
        assert (np.asarray(image) == known[17]).all()


def test_files_are_found_in_a_folder_packed_or_as_torchvision_lays_them_out(tmp_path: Path) -> None:
    for name, kind in (("kmnist", "KMNIST"), ("torchvision:FashionMNIST", "FashionMNIST"), ("mnist", "MNIST")):
        raw = packed(tmp_path / kind / "packed")
        for file in raw.iterdir():
            plain = tmp_path / kind / "plain" / kind / "raw" / file.stem
            plain.parent.mkdir(parents=True, exist_ok=True)
            plain.write_bytes(gzip.decompress(file.read_bytes()))
        prepare(name, f"{kind}/a", root=str(raw))
        prepare(name, f"{kind}/b", root=str(tmp_path / kind / "plain"))
        one, other = (read_card(tmp_path / kind / part / "val") for part in "ab")
        assert one == other  # where they lie changes nothing
    assert read_card(tmp_path / "KMNIST" / "a" / "val")["licences"] == ["CC BY-SA 4.0"]


def test_a_set_with_named_splits_has_numbers_as_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy = pytest.importorskip("scipy.io")
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # these are not the published files
    for split, count in (("train", 2), ("test", 1)):
        digits = np.array([*range(1, 11)] * count)[:, None]  # 10 stands for 0
        pixels = np.full((32, 32, 3, len(digits)), 200, np.uint8)
        scipy.savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": digits})
    summary = prepare("svhn", "out", root=str(tmp_path))
    assert "32 x 32 pixels, RGB" in summary
    assert labels(tmp_path / "out") == [{str(digit) for digit in range(10)}] * 2
    assert read_card(tmp_path / "out" / "val")["licences"] == ["non-commercial use only"]


def test_a_set_without_a_split_is_split_as_a_folder_is(tmp_path: Path) -> None:
    for label in ("Forest", "River"):
        place = tmp_path / "files" / "eurosat" / "2750" / label
        place.mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (64, 64), (number, 9, 9)).save(place / f"{number}.jpg")
    prepare("eurosat", "out", root="files", image_size=16)
    assert [len(read_set(tmp_path / "out" / split)) for split in SPLITS] == [8, 2]
    assert read_card(tmp_path / "out" / "train")["settings"]["val_fraction"] == 0.2


class Signs:
    """A data set of torchvision's form whose images differ in size, without names of classes."""

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        self.count = {"train": 4, "test": 2}[split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.new("RGB", (20 + index, 30)), index % 2


class Boxes(Signs):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], {"box": [0, 0, 1, 1]}


class Pairs(Signs):
    def __init__(self, root: str, annotations: str) -> None:
        super().__init__(root)


@pytest.fixture
def more_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Signs, Boxes, Pairs):
        monkeypatch.setattr(datasets, kind.__name__, kind, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Signs", "Boxes", "Pairs"))


@pytest.mark.usefixtures("more_sets")
def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found an image of 20 x 30 pixels .* Set image_size"):
        prepare("torchvision:Signs", "out")
    assert not (tmp_path / "out").exists()
    prepare("torchvision:signs", "out", image_size=8)
    assert labels(tmp_path / "out") == [{"0", "1"}] * 2
    card = read_card(tmp_path / "out" / "val")
    assert (card["provenance"], card["licences"]) == (["torchvision.datasets.Signs"], ["as the source's"])


@pytest.mark.usefixtures("more_sets")
@pytest.mark.parametrize(
    "name",
    ["Boxes", "Pairs", "CocoDetection", "VOCDetection", "Sintel", "CelebA", "FakeData", "HMDB51", "Nonsense", ""],
)
def test_other_sets_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=rf"'torchvision:{name}', .*fashion_mnist, .*eurosat, or torchvision:NAME"):
        prepare(f"torchvision:{name}", "out", image_size=8)


def test_a_run_refuses_a_name_before_it_begins(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, says in (("VOCDetection", "without images that have one class"), ("Nonsense", "no data set of torch")):
        assert main(["run", "own_images", "--set", f"data=torchvision:{name}", "--dry-run"]) == 2
        assert says in capsys.readouterr().err
    assert main(["run", "table1", "--set", "data=cifar10", "--dry-run"]) == 2
    assert "Add --set prepare={}" in capsys.readouterr().err
    assert main(["prepare", "--data=fashionmnist", "--output=out"]) == 2
    assert "names are fashion_mnist" in capsys.readouterr().err


def test_without_files_and_network_the_place_for_the_files_is_named(tmp_path: Path) -> None:
    raw = "FashionMNIST/raw/train-images-idx3-ubyte"
    with pytest.raises(InputError, match=rf"torch/datasets: found no files of fashion_mnist.*{raw}.*set root"):
        prepare("fashion_mnist", "out")
    for name, files in (("cifar10", "cifar-10-batches-py"), ("usps", "usps.bz2"), ("stl10", "stl10_binary")):
        with pytest.raises(InputError, match=rf"^files: found no files of {name}.*no way to download.*{files}"):
            prepare(name, "out", root="files")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"<html>" + data, lambda data: b""])
def test_a_damaged_file_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = packed(tmp_path / "debian") / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"(train-images-idx3-ubyte.gz|files): found a (broken file|web page)"):
        prepare("fashion_mnist", "out")


def test_a_folder_with_the_name_of_a_data_set_is_told_apart(tmp_path: Path, make_set: Callable[..., Path]) -> None:
    for name, other in (("digits", "sklearn:digits"), ("mnist", "torchvision:mnist")):
        make_set(name, {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]})
        spellings = rf"^(--set )?data: found '{name}', .* data=\./{name} for the folder, or data={other}\."
        with pytest.raises(InputError, match=spellings):
            load_experiment("quickstart", [f"data={name}"])
        with pytest.raises(InputError, match=spellings):
            prepare(name, "out")
        stage = Plan(load_experiment("quickstart", [f"data=./{name}", "methods=[full]"])).everything()[0]
        assert stage.inputs == [f"./{name}"]
        assert "2 classes (cat, dog)" in prepare(f"./{name}", f"{name}-folder")
        assert load_experiment("quickstart", [f"data={other}"]).data == other
    assert "10 classes (0, 1" in prepare("sklearn:digits", "digits-set")
    assert read_card(tmp_path / "digits-set" / "train")["name"] == "digits/train"


def test_the_place_of_the_files_is_no_part_of_what_a_result_depends_on(tmp_path: Path) -> None:
    def key(*changes: str) -> str:
        stages = Plan(load_experiment("quickstart", ["data=fashion_mnist", "methods=[full]", *changes])).everything()
        assert stages[0].settings(tmp_path).get("root") == (changes[0].removeprefix("root=") if changes else None)
        return stage_keys(stages, fingerprints(set(), "content"))["data"]

    assert key() == key(f"root={tmp_path}") == key("root=elsewhere")


def test_a_place_for_files_is_refused_where_none_are_read(make_set: Callable[..., Path]) -> None:
    for data in ("digits", str(make_set("tree", {"cat": ["1.png"], "dog": ["1.png"]}))):
        with pytest.raises(InputError, match="root: found files, expected no value"):
            prepare(data, "out", root="files")


def test_the_doctor_knows_the_sizes_of_named_sets_and_where_their_files_are(tmp_path: Path) -> None:
    experiment = load_experiment("quickstart", ["data=fashion_mnist"])
    [finding] = check_named_set(experiment)
    assert finding.level == "warning"
    assert "FashionMNIST/raw" in finding.what
    packed(tmp_path / "debian")
    assert [found.level for found in check_named_set(experiment)] == ["ok"]
    inputs = inputs_of(experiment, open_trees(experiment)[0])
    assert inputs is not None
    assert (inputs.classes, inputs.side, inputs.channels) == (10, 28, 1)
    assert sorted(inputs.images.values()) == [10_000, 60_000]


def test_a_run_plans_from_debians_files(tmp_path: Path) -> None:
    packed(tmp_path / "debian")
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main(["run", "fashion_mnist", "--dry-run"]) == 0
    assert shown.getvalue().startswith("new      data ")
    assert not (tmp_path / "runs").exists()


def rows_after(heading: str) -> dict[str, list[str]]:
    """Rows of the first table after a heading of the page about data sets, by their first cell."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "data_sets.md"
    table = page.read_text().partition(f"## {heading}\n")[2].partition("\n| ---")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
    return {first.strip("`"): others for first, *others in cells}


def test_the_page_about_data_sets_says_what_is_known_of_each_named_set() -> None:
    rows = rows_after("By name")
    assert [*rows] == [*KNOWN, "torchvision:NAME"]
    for name, known in KNOWN.items():
        classes, training, validation, pixels, licence = rows[name]
        images = int(training.removesuffix(", split").replace(",", ""))
        assert (int(classes), training.endswith("split")) == (len(known.counts), known.val is None)
        assert images - len(known.counts) < sum(known.counts) <= images  # the same number in each class, rounded down
        assert validation == ("" if known.val is None else f"{known.val:,}")
        assert pixels == f"{known.side} x {known.side}, {'grey' if known.channels == 1 else 'colour'}"
        assert licence == known.licence


def test_the_page_about_data_sets_names_all_experiments_on_subsets_of_imagenet() -> None:
    rows = rows_after("From folders")
    shipped = {path.stem: load_experiment(path.stem, []).classes for path in (ROOT / "experiments").glob("*.yaml")}
    named = {name: classes for classes, row in rows.items() for name in re.findall(r"`(\w+)`", row[2])}
    assert named == {name: classes for name, classes in shipped.items() if classes}
    assert {name: int(row[0].replace(",", "")) for name, row in rows.items()} == {
        name: len(class_list(name)) for name in CLASS_LISTS
    }


def test_what_is_said_of_a_named_set_is_what_torchvision_has() -> None:
    kinds = {name: fetching.kind_of(name) for name in KNOWN if name != "digits"}
    assert {name: kind.__name__ for name, kind in kinds.items()} == {
        name: known.kind for name, known in KNOWN.items() if known.kind
    }
    for name, kind in kinds.items():
        assert (fetching._parts(kind)[1] is None) == (KNOWN[name].val is None)

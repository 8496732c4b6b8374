"""The commands ``dgs crops`` and ``dgs stitch``."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import resized_crop

from dgs_lightning.commands.crops import check_combination, crops
from dgs_lightning.commands.stitch import stitch
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import load_image
from dgs_lightning.data.transforms import to_bytes, to_unit
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier

MakeSet = Callable[..., Path]
LABELS = ("cat", "dog")


@pytest.fixture
def images(make_set: MakeSet) -> Path:
    return make_set("images", {label: [f"{k}.png" for k in range(9)] for label in LABELS}, size=12)


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    config = ClassifierConfig("convnet1", LABELS, 9, 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), width=4)
    torch.manual_seed(0)
    save_classifier(config.build(), config, tmp_path / "teacher")
    return str(tmp_path / "teacher")


@pytest.fixture
def cut(images: Path, teacher: str, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "crops", **settings: Any) -> Path:  # noqa: ANN401
        few: dict[str, Any] = {"image_size": 9, "mipc": 8, "crops": 3}
        return crops(str(tmp_path / name), str(images), teacher, **{**few, **settings})

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_kept_crops_are_those_of_the_boxes_that_their_records_name(cut: Callable[..., Path], images: Path) -> None:
    folder = cut()
    records = read_set(folder)
    assert Counter(record.label for record in records) == dict.fromkeys(LABELS, 8)
    assert len({record.extra["source"] for record in records}) == 16  # one crop of an image at most
    for record in records:
        source = to_unit(load_image(images / record.extra["source"]))
        patch = resized_crop(source, *record.extra["box"], [4, 4], antialias=True)
        assert torch.equal(to_bytes(load_image(folder / record.file_name)), (patch * 255).to(torch.uint8))
        assert record.estimator == read_card(folder)["settings"]["teacher"]
        assert record.predicted in LABELS
    few = {r.file_name: r.extra["box"] for r in read_set(cut("few", mipc=3))}
    assert all(few[r.file_name] == r.extra["box"] for r in records if r.file_name in few)  # its name decides
    assert any(r.difficulty != s.difficulty for r, s in zip(records, read_set(cut("other", seed=1)), strict=False))


def test_a_kept_crop_is_the_easiest_of_more_crops_and_padding_makes_it_look_other(cut: Callable[..., Path]) -> None:
    one, many, enlarged = (
        {r.file_name: r for r in read_set(cut(name, mipc=9, crops=crops, view=view))}
        for name, crops, view in (("one", 1, "padded"), ("many", 20, "padded"), ("large", 20, "enlarged"))
    )
    assert all((many[name].difficulty or 0) <= (one[name].difficulty or 0) + 1e-6 for name in one)
    assert any(many[name].difficulty != enlarged[name].difficulty for name in many)
    assert all(0 <= record.extra["whole"] <= 1 for record in enlarged.values())
    assert not any("whole" in record.extra for record in many.values())


def test_pictures_have_the_easiest_crops_and_name_their_sources(cut: Callable[..., Path], tmp_path: Path) -> None:
    made = cut()
    folder = stitch(str(tmp_path / "set"), crops=str(made), ipc=1, method="easy")
    records = read_set(folder)
    assert [record.file_name for record in records] == ["cat/00000.png", "dog/00000.png"]
    for record in records:
        easiest = sorted((r for r in read_set(made) if r.label == record.label), key=lambda r: r.difficulty or 0)[:4]
        assert record.extra["patches"] == [{key: r.extra[key] for key in ("source", "box")} for r in easiest]
        picture = np.asarray(Image.open(folder / record.file_name))
        assert picture.shape == (9, 9, 3)  # the first row and column of patches are 5 pixels wide
        last = np.asarray(Image.open(made / easiest[3].file_name))
        assert np.array_equal(picture[5:, 5:], last)
    card = read_card(folder)
    assert (card["settings"]["target"], card["settings"]["method"]) == ("the kept crops of all drawn images", "easy")
    assert (
        contents(stitch(str(tmp_path / "again"), crops=str(made), ipc=1, method="easy")).keys()
        == contents(folder).keys()
    )
    jpeg = stitch(str(tmp_path / "jpeg"), crops=str(made), ipc=2, method="easy", quality=75)
    assert {record.file_name for record in read_set(jpeg)} == {
        f"{label}/0000{k}.jpg" for label in LABELS for k in (0, 1)
    }


@pytest.mark.filterwarnings("ignore:smoothing found")
def test_difficulty_guided_crops_follow_what_was_seen_in_the_same_view(
    cut: Callable[..., Path], tmp_path: Path
) -> None:
    targets = []
    for view in ("padded", "enlarged"):
        made = cut(view, view=view)
        folder = stitch(str(tmp_path / f"set-{view}"), crops=str(made), ipc=1, method="dgs", smoothing="none")
        targets.append(read_card(folder)["settings"]["target"])
        records, key = read_set(made), {"padded": "difficulty", "enlarged": "whole"}[view]
        report = json.loads((folder / "selection.json").read_text())["classes"]["cat"]["raw"]["original"]
        seen = [
            float(r.difficulty or 0) if key == "difficulty" else r.extra["whole"] for r in records if r.label == "cat"
        ]
        assert report["mean"] == pytest.approx(np.mean(seen))
    assert targets == ["the kept crops of all drawn images", "the whole drawn images"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mipc": 10}, r"2 classes with fewer images \(cat: 9, dog: 9\), expected at least mipc: 10"),
        ({"image_size": 30, "factor": 2}, "12 x 12 pixels|30 px"),
        ({"scale": (0.5, 0.1)}, "smaller share first"),
        ({"image_size": 8}, r"teacher .*: .*9 px"),
    ],
)
def test_crops_that_cannot_be_cut_are_refused(settings: dict[str, Any], message: str, cut: Callable[..., Path]) -> None:
    def make() -> None:
        check_combination({"scale": (0.08, 1.0), **settings})
        cut(**settings)

    with pytest.raises(InputError, match=message):
        make()


def test_images_smaller_than_a_crop_and_classes_that_the_teacher_lacks_are_refused(
    make_set: MakeSet, teacher: str, tmp_path: Path
) -> None:
    small = make_set("small", {label: ["0.png"] for label in LABELS}, size=3)
    with pytest.raises(
        InputError, match=r"0\.png: found 3 x 3 pixels, expected at least the 4 pixels of a crop's side"
    ):
        crops(str(tmp_path / "crops"), str(small), teacher, image_size=9, mipc=1)
    other = make_set("other", {label: ["0.png"] for label in ("cat", "cow")}, size=12)
    with pytest.raises(InputError, match=r"1 missing label \(cow\)"):
        crops(str(tmp_path / "crops"), str(other), teacher, image_size=9, mipc=1)
    with pytest.raises(InputError, match=r"no crops, expected a folder that 'dgs crops' wrote"):
        stitch(str(tmp_path / "set"), crops=str(other), ipc=1)


def test_a_killed_command_repeated_gives_the_same_bytes(
    cut: Callable[..., Path], tmp_path: Path, killed_at_changes: Callable[..., list[int]]
) -> None:
    whole = contents(cut("whole"))
    pictures = contents(stitch(str(tmp_path / "pictures"), crops=str(tmp_path / "whole"), ipc=1, method="easy"))

    def job(number: int) -> None:
        cut(f"work{number}/crops", mipc=8)

    def stitching(number: int) -> None:
        stitch(str(tmp_path / f"more{number}/set"), crops=str(tmp_path / "whole"), ipc=1, method="easy")

    for name, work, expected, step in (("work", job, whole, 30), ("more", stitching, pictures, 8)):
        for number in killed_at_changes(lambda number, name=name: tmp_path / f"{name}{number}", work, step):
            [made] = (tmp_path / f"{name}{number}").iterdir()
            named = ("dataset.json", "README.md")  # they have the name of the folder
            images = {key: value for key, value in contents(made).items() if key not in named}
            assert images == {key: value for key, value in expected.items() if key not in named}

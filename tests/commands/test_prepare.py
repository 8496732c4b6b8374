import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dgs_lightning.commands.prepare import prepare
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set, scan_images
from dgs_lightning.data.records import MANIFEST
from dgs_lightning.data.transforms import adm_center_crop
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.data.writing import is_intact
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment

MakeSet = Callable[..., Path]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    summary = prepare("digits", str(folder))
    assert "10 classes" in summary
    assert "8 x 8 pixels, grey" in summary
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_digits_are_scikit_learns_split_by_class(digits: Path) -> None:
    train, val = read_set(digits / "train"), read_set(digits / "val")
    known = load_digits()
    assert len(train) + len(val) == len(known.target) == 1797
    counts = Counter(known.target)
    assert Counter(record.label for record in val) == {str(k): round(0.2 * counts[k]) for k in range(10)}
    for record in (train[0], val[-1]):
        index = int(Path(record.file_name).stem)
        with Image.open(digits / ("train" if record is train[0] else "val") / record.file_name) as image:
            assert (image.mode, record.label) == ("L", str(known.target[index]))
            assert np.abs(np.asarray(image) / 255 * 16 - known.images[index]).max() < 0.04


def test_a_card_says_where_images_come_from_and_how_they_were_made(digits: Path) -> None:
    card = read_card(digits / "val")
    assert (card["name"], card["kind"], card["images"], card["labels"]["3"]) == ("digits/val", "original", 359, "3")
    assert card["settings"] == {
        "image_size": 8,
        "channels": 1,
        "crop": "ADM centre crop",
        "seed": 0,
        "val_fraction": 0.2,
    }
    assert card["licences"] == ["CC BY 4.0"]
    assert card["hashes"]["sources"] == card["hashes"]["images"] != read_card(digits / "train")["hashes"]["images"]
    assert is_intact(digits / "val")


def test_the_same_preparation_gives_the_same_bytes_anywhere(make_set: MakeSet, tmp_path: Path) -> None:
    data = make_set("tree", {"cat": ["1.jpg", "2.jpg"], "dog": ["1.png", "2.png"]}, size=9)
    prepare(str(data), str(tmp_path / "a"), image_size=4)
    prepare(str(data), str(tmp_path / "b"), image_size=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert all(str(tmp_path).encode() not in content for content in contents(tmp_path / "a").values())


def test_one_tree_is_split_and_written_as_png_at_the_size(make_set: MakeSet, tmp_path: Path) -> None:
    files = {label: [f"{i}.jpg" for i in range(10)] for label in ("n02086240", "n01440764")}
    data = make_set("tree", files, size=9)
    prepare(str(data), str(tmp_path / "out"), image_size=4, val_fraction=0.3)
    train, val = read_set(tmp_path / "out" / "train"), read_set(tmp_path / "out" / "val")
    assert (len(train), len(val)) == (14, 6)
    stems = sorted(f"{r.label}/{Path(r.file_name).stem}" for r in (*train, *val))
    assert stems == sorted(f"{label}/{i}" for label in files for i in range(10))
    assert {r.class_name for r in train} == {"Shih-Tzu", "tench"}
    with Image.open(tmp_path / "out" / "train" / train[0].file_name) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (4, 4), "RGB")
    assert "research" in read_card(tmp_path / "out" / "train")["licences"][0]


def test_train_and_val_folders_stay_apart(make_set: MakeSet, tmp_path: Path) -> None:
    make_set("data/train", {"cat": ["1.png", "2.png"], "dog": ["1.png"]})
    make_set("data/val", {"cat": ["9.png"], "dog": ["9.png"]})
    prepare(str(tmp_path / "data"), str(tmp_path / "out"))
    assert [r.file_name for r in read_set(tmp_path / "out" / "train")] == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert [r.file_name for r in read_set(tmp_path / "out" / "val")] == ["cat/9.png", "dog/9.png"]
    assert "val_fraction" not in read_card(tmp_path / "out" / "val")["settings"]


def test_channels_are_read_from_the_images(make_set: MakeSet, tmp_path: Path) -> None:
    grey = make_set("grey", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]}, mode="L")
    assert "grey" in prepare(str(grey), str(tmp_path / "grey_out"))
    make_set("grey", {"dog": ["3.png"]})
    assert "RGB" in prepare(str(grey), str(tmp_path / "rgb_out"))
    assert "grey" in prepare(str(grey), str(tmp_path / "forced"), channels=1)
    for out, mode in (("grey_out", "L"), ("rgb_out", "RGB"), ("forced", "L")):
        folder = tmp_path / out / "train"
        with Image.open(folder / scan_images(folder)[0].file_name) as image:
            assert image.mode == mode


def test_an_interrupted_preparation_goes_on_and_ends_in_the_same_bytes(
    make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_set("tree", {label: [f"{i}.jpg" for i in range(8)] for label in ("cat", "dog")}, size=9)
    prepare(str(data), str(tmp_path / "whole"), image_size=4)
    cropped: list[int] = []

    def crop_some(image: Image.Image, size: int) -> Image.Image:
        cropped.append(size)
        if len(cropped) == 5:
            raise KeyboardInterrupt
        return adm_center_crop(image, size)

    with monkeypatch.context() as patch:
        patch.setattr("dgs_lightning.commands.prepare.adm_center_crop", crop_some)
        with pytest.raises(KeyboardInterrupt):
            prepare(str(data), str(tmp_path / "broken"), image_size=4)
    assert not (tmp_path / "broken" / "train").exists()
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "broken").rglob("[0-9]*.png")}
    assert done
    prepare(str(data), str(tmp_path / "broken"), image_size=4)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    kept = {p.name for p in (tmp_path / "broken").rglob("[0-9]*.png") if p.stat().st_mtime_ns in done.values()}
    assert len(kept) > 0


def test_a_finished_preparation_is_left_alone_and_a_damaged_one_mended(make_set: MakeSet, tmp_path: Path) -> None:
    data, out = make_set("tree", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]}), tmp_path / "out"
    prepare(str(data), str(out))
    before, inode = contents(out), (out / "train").stat().st_ino
    prepare(str(data), str(out))
    assert (contents(out), (out / "train").stat().st_ino) == (before, inode)
    next((out / "train" / "cat").glob("*.png")).unlink()
    prepare(str(data), str(out))
    assert contents(out) == before


@pytest.mark.parametrize("output", ["tree", "tree/prepared"])
def test_a_preparation_among_its_own_images_is_refused(make_set: MakeSet, tmp_path: Path, output: str) -> None:
    data = make_set("tree", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]})
    before = contents(data)
    with pytest.raises(InputError, match="expected a folder outside it"):
        prepare(str(data), str(tmp_path / output))
    assert contents(data) == before


@pytest.mark.parametrize("change", ["settings", "sources"])
def test_a_folder_made_with_other_settings_or_images_is_not_overwritten(
    make_set: MakeSet, tmp_path: Path, change: str
) -> None:
    data, out = make_set("tree", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]}), tmp_path / "out"
    prepare(str(data), str(out))
    before = contents(out)
    if change == "sources":
        make_set("tree", {"cat": ["3.png"]})
    with pytest.raises(InputError, match="other settings, or of other images"):
        prepare(str(data), str(out), image_size=4 if change == "settings" else None)
    assert contents(out) == before


def test_names_that_clash_are_found_before_any_pixel_is_read(
    make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_set("tree", {"cat": ["1.png", "2.png", "3.png"], "dog": ["1.png", "1.jpg", "2.png"]})
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_: pytest.fail("an image is read"))
        with pytest.raises(InputError, match=r"ending \(dog/1.jpg, dog/1.png\).*Rename them apart"):
            prepare(str(data), str(tmp_path / "out"))
        changes = [f"data={data}", "ipc=1"]
        patch.setattr("dgs_lightning.experiment.run.fingerprints", lambda *_: pytest.fail("the files are read"))
        with pytest.raises(InputError, match="only in their ending"):
            ExperimentRun(load_experiment("own_images", changes, str(tmp_path / "run")))


def test_a_preparation_says_what_it_ignored_and_which_images_are_in_both_sets(
    make_set: MakeSet, tmp_path: Path
) -> None:
    train = make_set("data/train", {"cat": ["1.png", "2.bmp"], "dog": ["1.png"]})
    val = make_set("data/val", {"cat": ["9.png"], "dog": ["9.png"]}, mode="L")
    (train / "dog" / "2.heic").touch()
    (train / "owl").mkdir()
    with Image.open(train / "cat" / "2.bmp") as image:  # the same picture in another format
        image.save(val / "dog" / "8.png")
    said = prepare(str(tmp_path / "data"), str(tmp_path / "out"))
    assert "/train: ignored files that are not read as images (1 .heic), class folders without images (1: owl)" in said
    assert "1 of 3 images for validation are also there for training" in said
    assert "val/dog/8.png" in said


def test_a_tree_that_lies_one_folder_deeper_is_named(make_set: MakeSet, tmp_path: Path) -> None:
    data = make_set("flowers", {"flowers/rose": ["1.png", "2.png"], "flowers/tulip": ["1.png", "2.png"]})
    with pytest.raises(InputError, match=f"Give {data}/flowers"):
        prepare(str(data), str(tmp_path / "out"))


def test_a_subset_by_links_is_prepared_as_its_copy_is(make_set: MakeSet, tmp_path: Path) -> None:
    store = make_set("store", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"], "owl": ["1.png", "2.png"]})
    links, copied = tmp_path / "links", tmp_path / "copied"
    for folder in (links, copied):
        folder.mkdir()
    for label in ("cat", "dog"):
        (links / label).symlink_to(store / label)
        copytree(store / label, copied / label)
    with pytest.raises(InputError, match="a link to"):
        prepare(str(links), str(tmp_path / "refused"))
    for folder in (links, copied):
        prepare(str(folder), str(tmp_path / "out" / folder.name), links="follow")
    made, expected = (contents(tmp_path / "out" / name / "train" / "cat") for name in ("links", "copied"))
    assert made == expected
    with pytest.raises(InputError, match="expected a folder outside it"):
        prepare(str(links), str(store / "cat" / "out"), links="follow")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "no class folders"),
        ({"cat": ["1.png", "2.png"]}, "one class"),
        ({"cat": ["1.png", "2.png"], "dog": ["1.png"]}, "at least two images"),
        ({"cat": ["1.png", "1.jpg", "1.bmp"], "dog": ["1.png", "2.png"]}, "differ only in their ending"),
        ({"train/cat": ["1.png"], "train/dog": ["1.png"], "val/cat": ["1.png"]}, "1 missing label"),
        ({"train/cat": ["1.png"], "val/cat": ["1.png"], "val/dog": ["1.png"]}, "one class"),
    ],
)
def test_trees_that_cannot_be_used_are_input_errors(
    make_set: MakeSet, tmp_path: Path, files: dict[str, list[str]], problem: str
) -> None:
    data = make_set("tree", files)
    data.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=problem):
        prepare(str(data), str(tmp_path / "out"), val_fraction=0.9)
    assert not list(tmp_path.glob("out/*/" + MANIFEST))


def test_all_unreadable_files_are_named_at_once(make_set: MakeSet, tmp_path: Path) -> None:
    train = make_set("data/train", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]})
    make_set("data/val", {"cat": ["1.png"], "dog": ["1.png"]})
    (train / "cat" / "1.png").write_bytes(b"")
    (train / "cat" / "2.png").write_text("no image")
    (train / "dog" / "1.png").write_bytes((train / "dog" / "2.png").read_bytes()[:60])
    with pytest.raises(InputError, match="3 images at fault") as error:
        prepare(str(tmp_path / "data"), str(tmp_path / "out"))
    assert all(name in str(error.value) for name in ("cat/1.png", "cat/2.png", "dog/1.png"))


def test_images_of_several_sizes_need_a_size(make_set: MakeSet, tmp_path: Path) -> None:
    make_set("tree", {"cat": ["1.png", "2.png"]}, size=8)
    data = make_set("tree", {"dog": ["1.png", "2.png"]}, size=9)
    with pytest.raises(InputError, match="9 x 9 pixels"):
        prepare(str(data), str(tmp_path / "out"))
    prepare(str(data), str(tmp_path / "out"), image_size=5)


def test_an_image_of_one_pixel_can_be_prepared(make_set: MakeSet, tmp_path: Path) -> None:
    data = make_set("tree", {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]}, size=1)
    assert "1 x 1 pixels" in prepare(str(data), str(tmp_path / "out"))
    prepare(str(data), str(tmp_path / "larger"), image_size=8)


def test_the_classes_of_a_list_are_required(make_set: MakeSet, tmp_path: Path) -> None:
    data = make_set("tree", {"n02096294": ["1.png", "2.png"], "cat": ["1.png", "2.png"]})
    with pytest.raises(InputError, match=r"9 missing labels .* 1 unknown label \(cat\)"):
        prepare(str(data), str(tmp_path / "out"), classes="imagewoof")


@pytest.mark.parametrize(
    ("name", "value"), [("image_size", 0), ("channels", 2), ("val_fraction", 0.0), ("val_fraction", 1.5)]
)
def test_settings_out_of_range_are_input_errors(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        prepare("digits", str(tmp_path / "out"), **{name: value})  # type: ignore[arg-type]


def test_a_preparation_makes_altered_images_again_and_ends_in_the_same_bytes_whenever_it_is_killed(
    make_set: MakeSet, tmp_path: Path, killed_at_changes: Callable[..., list[int]]
) -> None:
    data = make_set("tree", {label: ["1.png", "2.png"] for label in ("cat", "dog")})

    def job(number: int) -> None:
        for image in (tmp_path / f"{number}").rglob("cat/*.png"):
            if ".train.partial" in image.parts:
                image.write_bytes(image.read_bytes()[:-1])
        prepare(str(data), str(tmp_path / f"{number}"))

    job(0)
    kills = killed_at_changes(lambda number: tmp_path / f"{number}", job, step=4)
    assert len(kills) > 6
    for number in kills:
        assert contents(tmp_path / f"{number}") == contents(tmp_path / "0")


def test_an_image_that_the_disk_does_not_give_is_not_left_out(
    make_set: MakeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    data = make_set("tree", {label: ["1.png", "2.png"] for label in ("cat", "dog")})
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(InputError, match="found input/output error"):
        prepare(str(data), str(tmp_path / "out"))


def test_a_preparation_that_lost_its_card_is_made_again_where_a_run_vouches_for_it(
    make_set: MakeSet, tmp_path: Path
) -> None:
    data, out = make_set("tree", {label: ["1.png", "2.png"] for label in ("cat", "dog")}), tmp_path / "out"
    prepare(str(data), str(out))
    before = contents(out)
    (out / "train" / "dataset.json").unlink()
    with pytest.raises(InputError, match="files made with other settings"):
        prepare(str(data), str(out))
    Unfinished(out / "train", "data").adopt({})
    prepare(str(data), str(out))
    assert contents(out) == before

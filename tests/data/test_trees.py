"""Trees as people have them: parts of a data set under any name, copies, links, and files that are no images to us."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from dgs_lightning.data.folders import read_set, scan_images
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.data.trees import ignored_files, tree_files
from dgs_lightning.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def of_classes(*parts: str) -> list[str]:
    """Two images of two classes in each part; no image has the name of another one."""
    return [f"{part}/{label}/{number}-{i}.png" for number, part in enumerate(parts) for label in "ab" for i in range(2)]


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (of_classes("train", "test"), "Rename test to val."),
        (of_classes("Train", "VALID"), "Rename Train to train and VALID to val."),
        (of_classes("training_set", "dev", "test"), "Rename training_set to train and dev to val."),
        (of_classes("train2017", "val2017"), "Rename train2017 to train and val2017 to val."),
        (of_classes("seg_train", "seg_test", "seg_pred"), "Rename seg_train to train and seg_test to val."),
        (of_classes("train", "val"), "Give one of"),
        (of_classes("train"), "Give"),
        (of_classes("train", "later"), "Rename the folder of validation images to val. Or give"),
        ([*of_classes("train"), "unlabelled/1.png", "drawn/1.png"], "which is split then"),
        ([*of_classes("val"), "a/9.png", "b/9.png"], "Put the class folders of training images into"),
        (["TRAIN/1.png", "TEST/2.png"], "Rename TRAIN to train and TEST to val."),
        (["a/train/1.png", "a/test/2.png", "b/train/1.png", "b/test/2.png"], "Move their images into folders such as"),
        ([*of_classes("part/train", "part/Test"), "part/masks/a/9.png"], "Move their images into folders such as"),
    ],
)
def test_parts_of_a_data_set_are_not_taken_for_classes(tmp_path: Path, names: Sequence[str], remedy: str) -> None:
    with pytest.raises(InputError, match="part") as error:
        scan_images(touch(tmp_path, *names))
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ["train/1.png", "car/1.png", "bus/1.png"],
        ["train/new/1.png", "car/new/1.png", "bus/new/1.png"],
        ["bullet train/1.png", "blood test/1.png", "car/1.png"],
        ["blood test/a/1.png", "urine test/a/1.png"],
        ["cat/young/1.png", "cat/old/1.png", "dog/young/1.png", "dog/2.png"],
    ],
)
def test_classes_may_have_such_names_where_their_folders_are_like_the_others(
    tmp_path: Path, names: Sequence[str]
) -> None:
    assert len(scan_images(touch(tmp_path, *names))) == len(names)


@pytest.mark.parametrize(
    ("names", "copy"),
    [
        (["cat/1.png", "dog/2.png", "pets/cat/1.png", "pets/dog/2.png"], "pets"),
        (["cat/1.png", "dog/2.png", "small/cat/1.jpg"], "small"),
        (["cat/1.png", "cat/2.png", "cat/cat/1.png", "cat/cat/2.png", "dog/1.png"], "cat"),
    ],
)
def test_a_folder_that_holds_a_copy_of_the_tree_is_no_class(tmp_path: Path, names: Sequence[str], copy: str) -> None:
    with pytest.raises(InputError, match="no copy of") as error:
        scan_images(touch(tmp_path, *names))
    assert error.value.parts[0] == str(tmp_path / copy)


def test_a_part_that_is_missing_under_its_name_is_looked_for_under_others(tmp_path: Path) -> None:
    touch(tmp_path, *of_classes("Training", "evaluation"))
    for missing, there in (("train", "Training"), ("val", "evaluation")):
        with pytest.raises(InputError, match=f"Rename .*/{there} to {missing}"):
            read_set(tmp_path / missing)


def test_what_is_ignored_is_counted_by_ending_with_loose_images_and_empty_classes(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/2.HEIC", "cat/3.heic", "cat/4.jpg.download", "cat/5", "dog/1.avif", "loose.png")
    touch(tmp_path, "README.md", "cat/.hidden", ".cache/1.jp2")
    (tmp_path / "owl").mkdir()
    ignored = ignored_files(tmp_path)
    assert ignored.endings == {".heic": 2, ".jpg.download": 1, "": 1, ".avif": 1}
    assert (ignored.loose, ignored.empty) == (1, ["dog", "owl"])
    assert "2 .heic, 1 without ending, 1 .avif, 1 .jpg.download" in str(ignored)
    assert "(2: dog, owl)" in str(ignored)


def test_a_tree_whose_images_are_all_of_other_formats_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no class folders with images, but .*2 \.heic, 1 \.jp2"):
        scan_images(touch(tmp_path, "cat/1.heic", "cat/2.heic", "dog/1.jp2"))


# ---- links -------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A subset by links: a class folder, a folder in another one, and an image, all elsewhere."""
    store = touch(tmp_path / "store", "n1/1.png", "n1/2.png", "n2/part/1.png", "n3/1.png")
    tree = touch(tmp_path / "tree", "dog/own.png")
    (tree / "cat").symlink_to(store / "n1")
    (tree / "dog" / "more").symlink_to(store / "n2", target_is_directory=True)
    (tree / "dog" / "one.png").symlink_to(os.path.relpath(store / "n3" / "1.png", tree / "dog"))
    return tree


def test_links_are_followed_where_that_is_asked_for_and_refused_elsewhere(linked: Path) -> None:
    found = [record.file_name for record in read_set(linked, links="follow")]
    assert found == ["cat/1.png", "cat/2.png", "dog/more/part/1.png", "dog/one.png", "dog/own.png"]
    with pytest.raises(InputError, match="links=follow"):
        read_set(linked)


def test_links_are_never_followed_out_of_a_folder_with_a_manifest(linked: Path) -> None:
    write_manifest(linked, [ImageRecord(r.file_name, r.label) for r in scan_images(linked, "follow")])
    with pytest.raises(InputError, match="a link to"):
        read_set(linked, links="follow")


@pytest.mark.parametrize("kind", ["to itself", "to the tree", "above the tree", "there and back", "to nothing"])
def test_links_in_a_circle_or_to_nothing_end_in_an_error(tmp_path: Path, kind: str) -> None:
    tree = touch(tmp_path / "tree", "cat/1.png", "dog/1.png")
    other = touch(tmp_path / "other", "x/1.png")
    link = tree / "cat" / "link.png"
    targets = {"to the tree": tree, "above the tree": tmp_path, "there and back": other, "to nothing": tree / "gone"}
    link.symlink_to(targets.get(kind, link))
    (other / "x" / "back").symlink_to(tree / "cat")
    with pytest.raises(InputError, match="a link to") as error:
        list(tree_files(tree, "follow"))
    assert error.value.parts[0].endswith(("/link.png", "/back"))

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree, move, rmtree

import numpy as np
import pytest
from PIL import Image

from dgs_lightning.data.classes import class_list
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.sources import Split
from dgs_lightning.doctor.finding import Finding
from dgs_lightning.doctor.images import (
    check_balance,
    check_classes,
    check_counts,
    check_drawn,
    check_edition,
    check_files,
    check_validation_sets,
    open_trees,
)
from dgs_lightning.experiment.images import Trees
from dgs_lightning.experiment.settings import Experiment

from .conftest import MakeTree

TENCH, SPRINGER = "n01440764", "n02102040"


def looked(experiment: Experiment) -> list[Finding]:
    trees, findings = open_trees(experiment)
    findings += check_classes(experiment, trees)
    findings += check_counts(experiment, trees)
    findings += check_files(experiment, trees)
    return [finding for finding in findings if finding.level != "ok"]


def the_finding(findings: Sequence[Finding], *words: str) -> Finding:
    [found] = [finding for finding in findings if all(word in finding.what for word in words)]
    return found


def rename(data: str | None, names: dict[str, str]) -> None:
    for split in ("train", "val"):
        for old, new in names.items():
            move(Path(str(data), split, old), Path(str(data), split, new))


def test_a_missing_class_is_named_by_label_and_in_words(healthy: Experiment) -> None:
    rmtree(Path(str(healthy.data), "train", TENCH))
    findings = looked(healthy)
    found = the_finding(findings, "train", "1 missing", f"{TENCH} (tench)", "classes of imagenette")
    assert found.level == "problem"
    assert f"Add the folders {TENCH} (tench)" in found.remedy
    assert "1 unknown" in the_finding(findings, "val has other classes").what


def test_the_list_that_fits_is_named_where_another_was_asked_for(healthy: Experiment) -> None:
    [found] = looked(replace(healthy, classes="imagewoof"))
    assert "10 missing" in found.what
    assert "the classes of imagenette" in found.remedy


def test_a_list_that_does_not_exist_is_a_problem(healthy: Experiment) -> None:
    [found] = looked(replace(healthy, classes="imagemeow"))
    assert "imagemeow" in found.what


def test_folders_with_readable_names_are_given_their_ids(healthy: Experiment) -> None:
    rename(healthy.data, {TENCH: "Tench", SPRINGER: "english_springer"})
    remedy = the_finding(looked(healthy), "train", "2 missing").remedy
    assert f"Tench -> {TENCH}" in remedy
    assert f"english_springer -> {SPRINGER}" in remedy


def test_folders_with_numbers_are_told_that_two_orders_are_in_use(healthy: Experiment) -> None:
    woof = class_list("imagewoof")
    rename(healthy.data, {label: str(index) for index, label in enumerate(class_list("imagenette"))})
    remedy = the_finding(looked(replace(healthy, classes="imagewoof")), "train", "10 missing").remedy
    assert f"sorted begins {min(woof)}" in remedy
    assert f"published {woof[0]}" in remedy


def test_classes_too_many_are_named(healthy: Experiment) -> None:
    for split in ("train", "val"):
        copytree(Path(str(healthy.data), split, TENCH), Path(str(healthy.data), split, "aardvark"))
    assert "to a place without aardvark" in the_finding(looked(healthy), "train", "1 unknown").remedy


def test_classes_short_of_the_ipc_are_fatal_only_where_originals_are_selected(healthy: Experiment) -> None:
    found = the_finding(looked(replace(healthy, ipc=50)), "fewer images than the largest ipc 50", f"{TENCH}: 12")
    assert found.level == "problem"
    assert "lower ipc to 12" in found.remedy
    [found] = looked(replace(healthy, ipc=50, methods=["dit", "minimax"]))
    assert found.level == "warning"
    found = the_finding(
        looked(replace(healthy, ipc=50, methods=["dit"], scores=["lrs"])), "fewer images than the largest ipc 50"
    )
    assert found.level == "problem"  # scores compare with a random set


def test_what_a_split_leaves_for_training_is_what_counts(healthy: Experiment) -> None:
    one_tree = replace(healthy, data=str(Path(str(healthy.data), "train")), prepare={"val_fraction": 0.25}, ipc=9)
    assert looked(one_tree) == []
    [found] = looked(replace(one_tree, ipc=10))
    assert f"{TENCH}: 9" in found.what


def test_a_missing_val_folder_is_a_problem_only_where_nothing_is_prepared(healthy: Experiment) -> None:
    rmtree(Path(str(healthy.data), "val"))
    [found] = looked(replace(healthy, prepare=None))
    assert found.level == "problem"
    assert "val" in found.what
    assert "prepare={}" in found.remedy


def test_a_pool_needs_more_images_than_are_selected_from_it(healthy: Experiment) -> None:
    pool = str(Path(str(healthy.data), "train"))
    experiment = replace(healthy, data=None, prepare=None, pool=pool, methods=["pool_dgs"])
    [found] = looked(replace(experiment, ipc=10))
    assert found.level == "warning"
    assert "50 images a class" in found.remedy
    [found] = looked(replace(experiment, ipc=20))
    assert found.level == "problem"


def test_an_unreadable_image_is_named(healthy: Experiment) -> None:
    Path(str(healthy.data), "train", TENCH, "0.png").write_bytes(b"no picture")
    [found] = looked(healthy)
    assert found.level == "problem"
    assert f"{TENCH}/0.png" in found.what


def test_images_smaller_than_the_working_size_are_pointed_out(healthy: Experiment) -> None:
    [found] = looked(replace(healthy, image_size=64))
    assert found.level == "warning"
    assert "image_size=16" in found.remedy


def test_values_of_fewer_than_16_bits_come_with_the_range_to_set(healthy: Experiment) -> None:
    for path in Path(str(healthy.data), "train").rglob("*.png"):
        Image.fromarray(np.full((16, 16), 900, dtype=np.uint16)).save(path)
    [found] = looked(healthy)
    assert (found.level, "values from 900 to 900" in found.what) == ("problem", True)
    assert "prepare.value_range=[0, 1023]" in found.remedy
    assert looked(replace(healthy, prepare={"value_range": [0, 1023]})) == []


def test_classes_with_few_validation_images_are_told_where_trainings_are_evaluated_on_parts_of_them(
    healthy: Experiment,
) -> None:
    easy = replace(healthy, validation=["easy"])

    def found(experiment: Experiment) -> list[Finding]:
        return list(check_validation_sets(experiment, open_trees(experiment)[0]))

    assert found(healthy) == []
    [few] = found(easy)
    assert (few.level, "4 validation images in the smallest class, to take easy from" in few.what) == ("warning", True)
    for index in range(1, 4):
        Path(str(healthy.data), "val", TENCH, f"{index}.png").unlink()
    [too_few] = found(easy)
    assert too_few.level == "problem"


def of_counts(train: Sequence[int], val: Sequence[int]) -> Trees:
    """Imagewoof with so many images of each class; edition is told by numbers alone."""
    labels = class_list("imagewoof")
    return {
        role: Split(
            role,
            Path(role),
            [ImageRecord(f"{x}/{i}.png", x) for x, count in zip(labels, counts, strict=True) for i in range(count)],
        )
        for role, counts in (("train", train), ("val", val))
    }


@pytest.mark.parametrize(
    ("train", "val", "level", "words"),
    [
        ([1300] * 9 + [1029], [50] * 10, "ok", "ImageNet's own images"),
        ([900] * 9 + [925], [400] * 9 + [329], "warning", "as fastai split it (9,025 training and 3,929 validation"),
        ([900] * 9 + [924], [400] * 9 + [329], "warning", "nor fastai's 9,025 and 3,929"),
        ([1300] * 9 + [700], [50] * 10, "warning", "not ImageNet's"),
    ],
)
def test_the_edition_is_told_by_its_numbers(train: Sequence[int], val: Sequence[int], level: str, words: str) -> None:
    [found] = check_edition(of_counts(train, val))
    assert found.level == level
    assert words in found.what


def test_uneven_classes_are_a_warning_with_what_to_do_about_the_estimator(
    healthy: Experiment, tmp_path: Path, make_tree: MakeTree
) -> None:
    data = make_tree(tmp_path / "uneven", ["cat"], 4)
    make_tree(data, ["dog"], 12)
    uneven = replace(healthy, data=str(data), classes=None)
    [found] = check_balance(uneven, open_trees(uneven)[0])
    assert found.level == "warning"
    assert "classes of 4 (cat) to 12 (dog) images" in found.what
    assert "cross_fit.model.init_args.balanced=true" in found.remedy
    shipped = replace(uneven, cross_fit={"config": "classify/estimator_own_images.yaml"})
    [found] = check_balance(shipped, open_trees(shipped)[0])
    assert "accuracy of each class" in found.remedy
    assert not list(check_balance(healthy, open_trees(healthy)[0]))


def test_numbered_classes_are_listed_as_people_count(healthy: Experiment, tmp_path: Path, make_tree: MakeTree) -> None:
    data = make_tree(tmp_path / "numbered", ["1", "2", "10", "b", "A"], 2)
    numbered = replace(healthy, data=str(data), classes=None)
    [found] = check_classes(numbered, open_trees(numbered)[0])
    assert found.what.endswith("5 classes (1, 2, 10, A, b)")


def test_a_class_with_fewer_images_than_are_drawn_for_crops_is_a_problem(healthy: Experiment) -> None:
    cases: list[tuple[dict[str, dict[str, object]], str | None]] = [({}, "problem")]
    cases += [({"rded": {"mipc": 12}}, None), ({"rded": {"mipc": None}}, None)]
    for options, level in cases:
        experiment = replace(healthy, methods=["rded", "rded_dgs"], options=options)
        found = list(check_drawn(experiment, open_trees(experiment)[0]))
        assert [finding.level for finding in found] == ([level] if level else [])
        assert all("RDED draws 300" in f.what and "options.rded.mipc to at most 12" in f.remedy for f in found)
    assert not list(check_drawn(healthy, open_trees(healthy)[0]))

from collections.abc import Callable
from pathlib import Path

import pytest
from timm.data.imagenet_info import ImageNetInfo

from dgs_lightning.data.classes import (
    CLASS_LISTS,
    check_known,
    check_labels,
    class_list,
    imagenet_index,
    labels_of,
    list_with,
    readable_name,
    renamings,
)
from dgs_lightning.errors import InputError

MakeSet = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("imagewoof", 10, "n02096294", "n02105641"),
        ("imagenette", 10, "n01440764", "n03888257"),
        ("imageidc", 10, "n02869837", "n01773797"),
        ("imagenet100", 100, "n02869837", "n02090622"),
        ("imagenet1k", 1000, "n01440764", "n15075141"),
    ],
)
def test_class_lists_are_in_the_published_order(name: str, count: int, first: str, last: str) -> None:
    labels = class_list(name)
    assert (len(set(labels)), labels[0], labels[-1]) == (count, first, last)
    assert set(labels) <= set(ImageNetInfo().label_names())  # type: ignore[no-untyped-call]


def test_imageidc_is_the_start_of_imagenet100() -> None:
    assert class_list("imageidc") == class_list("imagenet100")[:10]


def test_an_unknown_list_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=", ".join(CLASS_LISTS)):
        class_list("imagemeow")


def test_the_index_of_a_label_is_its_rank_among_all_thousand() -> None:
    assert imagenet_index("n01440764") == 0
    assert imagenet_index("n02086240") == 155
    assert imagenet_index("n15075141") == 999
    assert imagenet_index("n99999999") is None
    assert imagenet_index("cat") is None


def test_readable_names_are_the_first_english_ones() -> None:
    assert readable_name("n02086240") == "Shih-Tzu"
    assert readable_name("n01440764") == "tench"
    assert readable_name("7") == "7"


def test_labels_of_a_folder_are_sorted(make_set: MakeSet) -> None:
    assert labels_of(make_set("tree", {"dog": ["1.png"], "cat": ["1.png", "2.png"]})) == ("cat", "dog")


def test_labels_are_sorted_unless_a_list_says_their_order() -> None:
    found = set(class_list("imagewoof"))
    assert check_labels(found, None, "tree") == tuple(sorted(found))
    assert check_labels(found, "imagewoof", "tree") == class_list("imagewoof")
    assert check_labels(found, sorted(found, reverse=True), "tree")[0] == "n02115641"


def test_classes_that_do_not_match_are_listed() -> None:
    found = {*class_list("imagewoof")[1:], "cat"}
    with pytest.raises(
        InputError, match=r"1 missing label \(n02096294 \(Australian terrier\)\); 1 unknown label \(cat\)"
    ):
        check_labels(found, "imagewoof", "tree")


def test_the_list_with_some_classes_is_found() -> None:
    assert [list_with(set(class_list(name))) for name in CLASS_LISTS] == list(CLASS_LISTS)
    assert list_with({"cat", "dog"}) is None


def test_readable_names_are_matched_with_their_labels() -> None:
    assert renamings(["golf_ball", "cat"], class_list("imagenette")) == ["golf_ball -> n03445777"]
    assert renamings(["Crane"], class_list("imagenet1k")) == ["Crane -> n02012849 or n03126707"]


def test_the_error_of_other_classes_says_how_to_get_the_expected_ones() -> None:
    with pytest.raises(InputError, match="These are the classes of imagenette"):
        check_labels(set(class_list("imagenette")), "imagewoof", "tree")
    with pytest.raises(InputError, match="tench -> n01440764"):
        check_labels({"tench", *class_list("imagenette")[1:]}, "imagenette", "tree")
    with pytest.raises(InputError, match="Add the folders owl; or name the list that fits"):
        check_labels({"cat"}, ["cat", "owl"], "tree")
    with pytest.raises(InputError, match="a place without 7; or"):
        check_labels({"cat", "7"}, ["cat"], "tree")


def test_a_model_that_lacks_labels_is_an_error_with_the_names_to_change() -> None:
    check_known({"cat"}, ["cat", "dog"], "model", "Train it")
    with pytest.raises(InputError, match=r"model: found 1 unknown label \(owl\).* Train it"):
        check_known({"cat", "owl"}, ["cat", "dog"], "model", "Train it")
    with pytest.raises(InputError, match="Tench -> n01440764"):
        check_known({"Tench"}, class_list("imagenet1k"), "model", "Train it")

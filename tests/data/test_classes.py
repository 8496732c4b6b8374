from collections.abc import Callable
from pathlib import Path

import pytest
from timm.data.imagenet_info import ImageNetInfo

from dgs_lightning.data.classes import (
    CLASS_LISTS,
    check_labels,
    class_list,
    imagenet_index,
    labels_of,
    readable_name,
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
    with pytest.raises(InputError, match=r"1 missing label \(n02096294\); 1 unknown label \(cat\)"):
        check_labels(found, "imagewoof", "tree")

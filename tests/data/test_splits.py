import random
from collections import Counter

import pytest

from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.splits import folds_of, split_sizes, validation_part

RECORDS = [ImageRecord(f"{label}/{i}.png", label) for label, count in (("a", 11), ("b", 23)) for i in range(count)]


def test_folds_have_equally_many_images_of_every_class_to_one() -> None:
    counts = Counter(zip((r.label for r in RECORDS), folds_of(RECORDS, 5), strict=True))
    assert sorted(counts[("a", k)] for k in range(5)) == [2, 2, 2, 2, 3]
    assert sorted(counts[("b", k)] for k in range(5)) == [4, 4, 5, 5, 5]


def test_the_part_of_an_image_does_not_depend_on_the_order_of_files() -> None:
    shuffled = random.Random(0).sample(RECORDS, len(RECORDS))
    for parts in (lambda records: folds_of(records, 3), lambda records: validation_part(records, 0.25, 7)):
        first = {r.file_name: p for r, p in zip(RECORDS, parts(RECORDS), strict=True)}
        assert {r.file_name: p for r, p in zip(shuffled, parts(shuffled), strict=True)} == first


def test_validation_takes_its_fraction_of_every_class_but_one_image_at_least_and_never_all() -> None:
    counts = Counter(r.label for r, val in zip(RECORDS, validation_part(RECORDS, 0.2, 0), strict=True) if val)
    assert counts == {"a": 2, "b": 5}
    assert split_sizes([11, 23], 0.2) == (27, 7)
    pair = RECORDS[:2]
    assert sum(validation_part(pair, 0.01, 0)) == sum(validation_part(pair, 0.99, 0)) == 1


def test_another_seed_splits_otherwise() -> None:
    assert validation_part(RECORDS, 0.5, 0) != validation_part(RECORDS, 0.5, 1)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 folds"):
        folds_of(RECORDS, 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        validation_part(RECORDS, 1.0, 0)

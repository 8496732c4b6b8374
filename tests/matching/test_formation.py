import pytest
import torch
from tests.matching.conftest import Load, assert_golden

from dgs_lightning.matching.formation import decode, decode_all, decode_bounded, mixed_start


@pytest.mark.golden
def test_decoded_images_and_their_gradient_are_the_published_ones(values: Load) -> None:
    given = values("multi_formation")
    for name in [name for name in given if name.startswith("single/") and name.endswith("/out")]:
        place = name.removesuffix("/out")
        side, factor = (int("".join(filter(str.isdigit, word))) for word in place.split("/")[1].split("_"))
        images = given[f"x{side}"].requires_grad_()
        found, sources = decode(images, factor)
        assert_golden(found, given[name])
        assert sources.tolist() == given[f"{place}/targets"].tolist()
        weights = torch.linspace(-1, 1, found.numel()).view_as(found)
        assert_golden(torch.autograd.grad((found * weights).sum(), images)[0], given[f"{place}/grad"])


@pytest.mark.golden
def test_decoding_by_all_factors_is_the_published_one(values: Load) -> None:
    given = values("multi_formation")
    found, sources = decode_all(given["x8"], 3)
    assert_golden(found, given["multi/size8_factor3/out"])
    assert sources.tolist() == given["multi/size8_factor3/targets"].tolist()


@pytest.mark.golden
def test_bounded_decoding_is_the_published_one(values: Load) -> None:
    given = values("multi_formation")
    for name in [name for name in given if name.startswith("bound/") and name.endswith("/out")]:
        factor, bound = (int("".join(filter(str.isdigit, word))) for word in name.split("/")[1].split("_"))
        found, sources = decode_bounded(given["bound/x"], factor, bound)
        assert_golden(found, given[name])
        assert sources.tolist() == given[name.replace("/out", "/targets")].tolist()


@pytest.mark.golden
def test_the_mixed_start_is_the_published_one(values: Load) -> None:
    given = values("multi_formation")
    for name in [name for name in given if name.startswith("mix/") and name.endswith("/images")]:
        factor = int(name.split("factor")[1][0])
        assert_golden(mixed_start(given[name], factor), given[name.replace("/images", "/out")])


@pytest.mark.golden
def test_a_whole_set_is_decoded_class_by_class(values: Load) -> None:
    given = values("multi_formation")
    classes = given["evaluation/targets_in"]
    found = torch.cat([decode(given["evaluation/x"][classes == each], 2)[0] for each in torch.unique(classes)])
    assert_golden(found, given["evaluation/out"])


def test_factor_one_changes_nothing() -> None:
    images = torch.rand(3, 1, 7, 7)
    assert decode(images, 1)[0] is images
    assert mixed_start(images, 1).equal(images)


def test_a_bound_below_the_number_of_images_decodes_nothing() -> None:
    images = torch.rand(5, 1, 6, 6)
    found, sources = decode_bounded(images, 3, 2)
    assert found.equal(images)
    assert sources.tolist() == [0, 1, 2, 3, 4]

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import hflip, resized_crop

from dgs_lightning.data import augmentation as aug
from dgs_lightning.data.augmentation import Augmentation, CutMixDraw, Draws, augment, cutmix, draw_boxes, draw_cutmix

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int, size: int) -> Tensor:
    return torch.rand(count, channels, size, size, generator=generator(1), dtype=torch.float64)


def one_by_one(image: Tensor, draws: Draws, i: int) -> Tensor:
    """The published order of operations on one image, each written out."""
    top, left, height, width = draws.boxes[i].tolist()
    image = resized_crop(image, top, left, height, width, [image.shape[-1]] * 2, antialias=True)
    image = hflip(image) if draws.flips[i] else image
    for kind in draws.order[i].tolist():
        luma = torch.tensor([0.299, 0.587, 0.114] if len(image) == 3 else [1.0], dtype=image.dtype)
        grey = (image * luma[:, None, None]).sum(dim=0, keepdim=True)
        reference = [torch.zeros(()), grey.mean(), grey][kind]
        image = image.lerp(reference.to(image).expand_as(image), draws.strengths[i, kind].item())
    if len(image) == 3:
        vectors, values = np.array(aug.LIGHTING_VECTORS), np.array(aug.LIGHTING_VALUES)
        shift = sum(vectors[:, k] * values[k] * draws.lighting[i, k].item() for k in range(3))
        image = image + torch.from_numpy(shift)[:, None, None]
    mean, std = (torch.tensor(x[: len(image)], dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    return (image - mean) / std


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 33])
def test_a_batch_is_augmented_as_its_images_are_one_by_one(channels: int, size: int) -> None:
    batch = images(32, channels, size)
    draws = Augmentation(crop_scale=(0.3, 1.0)).draw(32, size, generator())
    expected = torch.stack([one_by_one(image, draws, i) for i, image in enumerate(batch)])
    out = augment(batch, draws, MEAN[:channels], STD[:channels])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("siamese", [None, ("color", "crop", "scale")])
def test_images_are_augmented_in_full_precision_also_where_the_network_computes_in_mixed(
    siamese: tuple[str, ...] | None,
) -> None:
    batch, augmentation = images(8, 3, 16).float(), Augmentation(siamese=siamese)
    expected = augmentation(batch, MEAN, STD, generator())
    with torch.autocast("cpu", torch.bfloat16):
        found = augmentation(batch, MEAN, STD, generator())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_drawing_nothing_leaves_the_images_to_their_normalisation() -> None:
    batch = images(4, 3, 6)
    draws = Augmentation(crop_scale=(1.0, 1.0), flip=False, jitter=0, lighting=0).draw(4, 6, generator())
    whole = draws._replace(boxes=torch.tensor([[0, 0, 6, 6]]).expand(4, 4))
    torch.testing.assert_close(augment(batch, whole, MEAN, STD), aug.normalise(batch, MEAN, STD))


def test_saturation_and_lighting_mean_nothing_to_a_single_channel() -> None:
    batch, draws = images(4, 1, 6), Augmentation().draw(4, 6, generator())
    other = draws._replace(lighting=draws.lighting + 1, strengths=draws.strengths * torch.tensor([1, 1, -1]))
    torch.testing.assert_close(augment(batch, draws, [0.5], [0.5]), augment(batch, other, [0.5], [0.5]))


def test_crops_lie_in_the_image_and_keep_the_share_and_shape_asked_for() -> None:
    top, left, height, width = draw_boxes(5000, 100, (0.5, 1.0), generator()).double().unbind(dim=1)
    assert top.min() == left.min() == 0
    assert (top + height).max() == (left + width).max() == 100
    assert (height * width / 100**2).min() > 0.49
    assert (width / height).min() > 0.74
    assert (width / height).max() < 1.35


def test_crops_are_as_large_on_average_as_torchvisions() -> None:
    torch.manual_seed(0)  # torchvision draws from the global generator
    image = torch.empty(1, 100, 100)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3])[2:] for _ in range(3000)])
    ours = draw_boxes(3000, 100, (0.5, 1.0), generator())[:, 2:].numpy()
    assert ours.prod(axis=1).mean() == pytest.approx(theirs.prod(axis=1).mean(), rel=0.02)
    assert ours.prod(axis=1).std() == pytest.approx(theirs.prod(axis=1).std(), rel=0.05)


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    assert draw_boxes(3, 7, (4.0, 5.0), generator()).tolist() == [[0, 0, 7, 7]] * 3


def test_the_same_generator_draws_the_same() -> None:
    first, second, other = (Augmentation().draw(4, 16, generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.strengths, other.strengths)


def test_drawn_strengths_flips_and_orders_cover_their_ranges() -> None:
    draws = Augmentation().draw(4000, 16, generator())
    assert draws.strengths.abs().max().item() == pytest.approx(0.4, abs=0.01)
    assert draws.strengths.mean().item() == pytest.approx(0, abs=0.02)
    assert draws.flips.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert draws.lighting.std().item() == pytest.approx(0.1, abs=0.01)
    assert len({tuple(order) for order in draws.order.tolist()}) == 6


def test_cutmix_pastes_the_partners_box_and_weighs_by_its_area() -> None:
    batch = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    mixed, own = cutmix(batch, CutMixDraw(torch.tensor([2, 0, 1]), (1, 0, 4, 2)))
    assert mixed[0, 0].tolist() == [[0, 0, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0]]
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert own == 1 - 6 / 16


@pytest.mark.parametrize("beta", [1.0, 50.0])
def test_cutmix_boxes_cover_the_share_that_beta_says_less_what_lies_outside(beta: float) -> None:
    draws = [draw_cutmix(4, 64, beta, generator(seed)) for seed in range(2000)]
    for top, left, bottom, right in (draw.box for draw in draws):
        assert 0 <= top <= bottom <= 64
        assert 0 <= left <= right <= 64
    inside = [draw.box for draw in draws if min(draw.box[:2]) > 0 and max(draw.box[2:]) < 64]
    assert len(inside) > 100
    if beta > 1:  # concentrated at the half: side 45
        assert np.mean([bottom - top for top, _, bottom, _ in inside]) == pytest.approx(64 * 0.5**0.5, abs=2)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["even", "odd", "one", "three", "three_odd"])
def test_patches_are_shuffled_as_in_the_release_of_rded(
    case: str, generative: Callable[[str], dict[str, Tensor]]
) -> None:
    values = generative("rded.npz")
    image, orders, out = (values[f"shuffle_{case}_{part}"] for part in ("in", "perms", "out"))
    assert torch.equal(aug.shuffle_patches(image[None], orders[None])[0], out)


@pytest.mark.golden
@pytest.mark.parametrize("case", range(4))
def test_cutmix_pastes_as_in_the_release_of_rded_but_not_in_place(
    case: int, generative: Callable[[str], dict[str, Tensor]]
) -> None:
    values = generative("rded.npz")
    batch, out, partners, box = (values[f"cutmix{case}_{part}"] for part in ("in", "out", "partners", "box"))
    top, left, bottom, right = box.tolist()
    before = batch.clone()
    mixed, own = cutmix(batch, CutMixDraw(partners, (top, left, bottom, right)))
    assert torch.equal(mixed, out)
    assert torch.equal(batch, before)
    assert own == 1 - (bottom - top) * (right - left) / batch[0, 0].numel()


def test_each_image_has_an_order_of_columns_and_one_of_rows_which_only_a_shuffle_draws() -> None:
    plain, shuffled = (Augmentation(patches=patches).draw(500, 16, generator()) for patches in (1, 2))
    assert {tuple(order) for order in shuffled.patches.flatten(1).tolist()} == {
        (0, 1, 0, 1),
        (0, 1, 1, 0),
        (1, 0, 0, 1),
        (1, 0, 1, 0),
    }
    assert all(torch.equal(a, b) for a, b in zip(plain[:-1], shuffled[:-1], strict=True))
    assert not plain.patches.any()


@pytest.mark.parametrize(("size", "patches"), [(16, 2), (17, 3)])
def test_patches_are_shuffled_before_the_crop_and_the_size_stays(size: int, patches: int) -> None:
    batch = images(8, 3, size)
    draws = Augmentation(patches=patches, jitter=0, lighting=0).draw(8, size, generator())
    side = size // patches
    for i, out in enumerate(augment(batch, draws, MEAN, STD)):
        columns, rows = draws.patches[i].tolist()
        shuffled = torch.cat([batch[i][:, :, k * side : (k + 1) * side] for k in columns], dim=2)
        shuffled = torch.cat([shuffled[:, k * side : (k + 1) * side] for k in rows], dim=1)
        cropped = resized_crop(shuffled, *draws.boxes[i].tolist(), [size, size], antialias=True)
        expected = aug.normalise((hflip(cropped) if draws.flips[i] else cropped)[None], MEAN, STD)[0]
        torch.testing.assert_close(out, expected)

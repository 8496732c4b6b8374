from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dgs_lightning.diffusion.criteria import Minimax, diversity, minimax_criteria, representativeness
from dgs_lightning.diffusion.memory import Memory


@pytest.mark.golden
def test_a_stream_of_batches_gives_the_published_terms(golden: Path) -> None:
    stream = np.load(golden / "minimax.npz")
    labels = torch.from_numpy(stream["label"])
    minimax = Minimax(int(labels.max()) + 1, int(stream["memory_size"]), stream["real"][0, 0].size)
    for real, pred, label, expected_r, expected_d in zip(
        torch.from_numpy(stream["real"]),
        torch.from_numpy(stream["pred"]),
        labels,
        stream["repr"],
        stream["div"],
        strict=True,
    ):
        terms = minimax(pred, real, label)
        assert float(terms.representativeness) * stream["lambda_repr"] == pytest.approx(expected_r, rel=1e-6, abs=1e-9)
        assert float(terms.diversity) * stream["lambda_div"] == pytest.approx(expected_d, rel=1e-6, abs=1e-9)


def remember(latents: Tensor, labels: Tensor, classes: int, size: int) -> Memory:
    memory = Memory(classes, size, latents[0].numel(), latents.dtype)
    memory.push(latents, labels)
    return memory


def test_representativeness_looks_at_the_least_similar_pair() -> None:
    pred = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    real = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert float(representativeness(pred, real)) == pytest.approx(1.0)  # (0, 2) against (3, 0)


def test_diversity_looks_at_the_most_similar_pair() -> None:
    pred = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    generated = torch.tensor([[-3.0, 0.0], [1.0, 1.0]])
    assert float(diversity(pred, generated)) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("criterion", [representativeness, diversity])
def test_an_empty_memory_is_refused(criterion: type[object]) -> None:
    with pytest.raises(ValueError, match="skip classes with an empty memory"):
        criterion(torch.ones(2, 3), torch.ones(0, 3))  # type: ignore[call-arg]


def test_a_batch_gives_the_mean_over_its_classes_and_their_gradients() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([2, 0, 0, 2, 2, 3])
    pred = torch.randn(6, 5, generator=random, dtype=torch.float64, requires_grad=True)
    kept, kept_labels = (
        torch.randn(9, 5, generator=random, dtype=torch.float64),
        torch.tensor([0, 2, 2, 0, 2, 1, 2, 0, 2]),
    )
    memory = remember(kept, kept_labels, 4, 8)  # class 3 has an empty memory, class 1 is not in the batch
    terms = minimax_criteria(pred, labels, memory, memory)
    by_class = [(pred[labels == c], kept[kept_labels == c]) for c in (0, 2)]
    expected_r = torch.stack([representativeness(*pair) for pair in by_class]).sum() / 3
    expected_d = torch.stack([diversity(*pair) for pair in by_class]).sum() / 3
    torch.testing.assert_close(terms.representativeness, expected_r)
    torch.testing.assert_close(terms.diversity, expected_d)
    found = torch.autograd.grad(terms.representativeness + 4 * terms.diversity, pred)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected_r + 4 * expected_d, pred)[0])


def test_mixed_precision_does_not_round_the_criteria() -> None:
    random = torch.Generator().manual_seed(0)
    pred, kept, labels = torch.randn(4, 64, generator=random), torch.randn(8, 64, generator=random), torch.arange(8) % 2
    memory = remember(kept, labels, 2, 4)
    expected = minimax_criteria(pred, labels[:4], memory, memory)
    with torch.autocast("cpu", torch.bfloat16):
        found = minimax_criteria(pred, labels[:4], memory, memory)
    assert torch.equal(found.representativeness, expected.representativeness)
    assert torch.equal(found.diversity, expected.diversity)


def test_a_class_without_a_value_is_not_a_number() -> None:
    memory = remember(torch.ones(1, 2), torch.tensor([1]), 3, 4)
    terms = minimax_criteria(torch.ones(2, 2), torch.tensor([1, 2]), memory, memory)
    torch.testing.assert_close(terms.diversity_by_class, torch.tensor([torch.nan, 1.0, torch.nan]), equal_nan=True)


def test_the_first_batch_has_no_terms_and_a_finite_gradient() -> None:
    pred = torch.ones(2, 2, requires_grad=True)
    terms = minimax_criteria(pred, torch.tensor([0, 1]), Memory(2, 4, 2), Memory(2, 4, 2))
    (terms.representativeness + terms.diversity).backward()  # type: ignore[no-untyped-call]
    assert terms.representativeness.item() == terms.diversity.item() == 0.0
    assert pred.grad is not None
    assert pred.grad.abs().max() == 0


def test_restored_memories_give_the_criteria_of_the_next_batch() -> None:
    random = torch.Generator().manual_seed(0)
    batches = torch.randn(3, 2, 6, 5, generator=random)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    through, restored = Minimax(2, 4, 5), Minimax(2, 4, 5)
    for pred, latents in batches[:2]:
        through(pred, latents, labels)
    restored.load_state_dict(through.state_dict())
    pred, latents = batches[2]
    expected, found = (minimax(pred, latents, labels) for minimax in (through, restored))
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(expected.diversity, Minimax(2, 4, 5)(pred, latents, labels).diversity)


def test_both_memories_move_to_a_device() -> None:
    minimax = Minimax(2, 4, 5)
    minimax.to(torch.device("meta"))
    held = [tensor for memory in minimax.state_dict().values() for tensor in memory.values()]
    assert [tensor.device.type for tensor in held] == ["meta"] * 4

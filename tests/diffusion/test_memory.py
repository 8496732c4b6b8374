from collections import deque

import pytest
import torch

from dgs_lightning.diffusion.memory import Memory, memory_bytes


def test_a_memory_holds_the_last_latents_of_each_class() -> None:
    random = torch.Generator().manual_seed(0)
    memory, queues = Memory(3, 4, 6), [deque[torch.Tensor](maxlen=4) for _ in range(3)]
    for batch in range(6):
        labels = torch.randint(0, 3, (9,), generator=random) if batch else torch.zeros(9, dtype=torch.long)
        latents = torch.randn(9, 2, 3, generator=random)
        memory.push(latents, labels)
        for latent, label in zip(latents, labels, strict=True):
            queues[int(label)].append(latent.flatten() / latent.norm())
        for held, filled, queue in zip(memory.directions, memory.filled, queues, strict=True):
            expected = sorted(tensor.tolist() for tensor in queue)
            torch.testing.assert_close(
                torch.tensor(sorted(held[filled].tolist())).reshape(-1, 6), torch.tensor(expected).reshape(-1, 6)
            )


def test_a_thousand_classes_fit_in_half_a_gigabyte_each_way() -> None:
    with torch.device("meta"):
        memory = Memory(1000, 64, 4 * 32 * 32, torch.bfloat16)
    assert 2 * memory.directions.nbytes < 1.1e9


def test_a_restored_memory_goes_on_where_it_was() -> None:
    latents, labels = torch.randn(12, 5, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 2
    through, restored = Memory(2, 4, 5), Memory(2, 4, 5)
    through.push(latents[:7], labels[:7])
    restored.load_state_dict({name: tensor.clone() for name, tensor in through.state_dict().items()})
    for memory in (through, restored):
        memory.push(latents[7:], labels[7:])
    assert torch.equal(through.directions, restored.directions)
    assert torch.equal(through.pushed, restored.pushed)


def test_a_memory_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="resume with the same classes"):
        Memory(2, 4, 5).load_state_dict(Memory(2, 8, 5).state_dict())


@pytest.mark.parametrize("sizes", [(0, 4, 5), (2, 0, 5), (2, 4, 0)])
def test_a_memory_of_nothing_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least one class, slot and dimension"):
        Memory(*sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_of_a_memory_are_those_of_its_directions(dtype: torch.dtype) -> None:
    assert memory_bytes(3, 4, 5, dtype) == Memory(3, 4, 5, dtype).directions.nbytes

"""All random choices of the matching tasks, each by name: a restart and the number of devices change none."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dgs_lightning.data.augmentation import CutMixDraw
from dgs_lightning.matching.siamese import Draw, draw_in_turn, draw_one
from dgs_lightning.seeding import generator, named_seed


class Draws:
    """Random choices of one training.

    Args:
        seed: Seed of the training.
        in_turn: Draw several operations of the augmentation, as IDC does, instead of one.
    """

    def __init__(self, seed: int, in_turn: bool = False) -> None:
        self.seed = seed
        self._draw = draw_in_turn if in_turn else draw_one

    def _generator(self, *names: int | str) -> Generator:
        return generator("matching", *names, self.seed)

    def network(self, number: int) -> int:
        """Seed of the initial weights of a network."""
        return named_seed("matching", "network", number, self.seed)

    def start(self, label: str, size: int, count: int) -> Tensor:
        """Different images of a class of ``size`` images, to start from."""
        return torch.randperm(size, generator=self._generator("start", label))[:count]

    def noise(self, label: str, shape: Sequence[int]) -> Tensor:
        """Standard normal pixels of a class, to start from."""
        return torch.randn(*shape, generator=self._generator("noise", label))

    def real(self, label: str, size: int, count: int, step: int) -> Tensor:
        """Different images of a class of ``size`` images; all of them, in a random order, where it has fewer."""
        return torch.randperm(size, generator=self._generator("real", label, step))[:count]

    def in_passes(self, name: str, size: int, count: int, number: int, whole: bool = True) -> Tensor:
        """Batch of a number, where images are served in passes, each in a random order.

        Args:
            name: What the images are for.
            size: Number of images.
            count: Images in a batch; all of them, where there are fewer.
            number: Number of the batch, from 0, over all passes.
            whole: Leave out the last batch of a pass if it is incomplete.
        """
        batches = max(1, size // count) if whole else -(-size // count)
        number_of_pass, batch = divmod(number, batches)
        order = torch.randperm(size, generator=self._generator("pass", name, number_of_pass))
        return order[batch * count :][:count]

    def some(self, label: str, size: int, count: int, step: int) -> Tensor:
        """Positions of the synthetic images of a class in a step: all in order, or ``count`` where there are more."""
        if size <= count:
            return torch.arange(size)
        return torch.randperm(size, generator=self._generator("synthetic", label, step))[:count]

    def augmentation(self, strategy: Sequence[str], side: int, *names: int | str, count: int = 1) -> list[Draw]:
        """Operations of the augmentation; ``names`` say what of. A batch shares the numbers unless ``count`` is its."""
        return self._draw(strategy, count, side, self._generator("augmentation", *names))

    def cutmix(self, share: float, count: int, side: int, *names: int | str) -> CutMixDraw | None:
        """CutMix of a batch that trains a network, for a share of the batches; ``names`` say which batch it is."""
        random = self._generator("cutmix", *names)
        if torch.rand((), generator=random) >= share:
            return None
        kept = torch.rand((), generator=random, dtype=torch.float64).item()  # Beta(1, 1)
        partners = torch.randperm(count, generator=random)
        row, column = torch.randint(side, (2,), generator=random).tolist()
        return CutMixDraw(partners, box_around(row, column, kept, side))


def box_around(row: int, column: int, kept: float, side: int) -> tuple[int, int, int, int]:
    """Box of IDC's CutMix as top, left, bottom, right: half of its side to either side of a pixel, as far as inside."""
    half = int(side * (1 - kept) ** 0.5) // 2
    return max(row - half, 0), max(column - half, 0), min(row + half, side), min(column + half, side)

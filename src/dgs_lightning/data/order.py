"""Whether images lie in the folders of their own classes: what the answers of a classifier tell about their order."""

from collections import Counter
from collections.abc import Sequence
from math import exp, lgamma, log
from typing import NamedTuple

import numpy as np

ENOUGH = 10  # images of classes that are exchanged, below which chance may have done it
PROOF = 1e-6  # largest probability of chance at which a wrong order counts as proved


class Order(NamedTuple):
    """The classes of a set beside the classes that a classifier sees in their images.

    Attributes:
        images: Number of images.
        classes: Number of classes.
        recognised: Share of the images that are given their own class, in [0, 1].
        best: The same, if the classes were in the order that fits the answers best.
        seen: For each label, the one that its images have in that order.
        exchanged: Labels that most images of are given another one, in a circle: exchanged classes.
        chance: Bound on the probability that answers without a relation to the classes fit some order so well.
    """

    images: int
    classes: int
    recognised: float
    best: float
    seen: dict[str, str]
    exchanged: tuple[str, ...]
    chance: float

    @classmethod
    def of(cls, answers: Sequence[tuple[str, str]]) -> "Order":
        """From the label and the predicted label of each image.

        Of N images in classes of one size, answers at random give a fixed order a share of at least m / N right with a
        probability of at most exp(-N KL(m / N, 1 / K)) (Chernoff and Hoeffding). There are K! orders.
        """
        from scipy.optimize import linear_sum_assignment  # slow to import

        labels = sorted({label for label, _ in answers})
        ranks = {label: rank for rank, label in enumerate(labels)}
        counts = np.zeros((len(labels), len(labels)), dtype=np.int64)  # label x predicted label
        for label, predicted in answers:
            if predicted in ranks:
                counts[ranks[label], ranks[predicted]] += 1
        rows, columns = linear_sum_assignment(-counts)
        sizes = Counter(label for label, _ in answers)
        seen = {labels[row]: labels[column] for row, column in zip(rows, columns, strict=True)}
        most = {label for label, other in seen.items() if 2 * counts[ranks[label], ranks[other]] > sizes[label]}
        best = int(counts[rows, columns].sum())
        return cls(
            len(answers),
            len(labels),
            int(counts.trace()) / max(1, len(answers)),
            best / max(1, len(answers)),
            seen,
            tuple(label for label in labels if seen[label] != label and _circle(label, seen) <= most),
            _bound(best, len(answers), len(labels)),
        )

    @property
    def is_wrong(self) -> bool:
        """Whether the order is proved wrong: no better than chance as it is, and right for most images in another."""
        at_chance = self.recognised <= min(2 / max(1, self.classes), 0.5)
        return self.classes > 1 and at_chance and self.best > 0.5 and self.chance < PROOF


def _circle(label: str, seen: dict[str, str]) -> set[str]:
    """The labels that are met from one on, going from each to the one that its images are given."""
    found = {label}
    while (label := seen[label]) not in found:
        found.add(label)
    return found


def _bound(right: int, images: int, classes: int) -> float:
    """Bound on the probability that one of all orders has so many images right by chance."""
    if classes < 2 or not right or right / images <= 1 / classes:
        return 1.0
    share, luck = right / images, 1 / classes
    divergence = share * log(share / luck) + ((1 - share) * log((1 - share) / (1 - luck)) if share < 1 else 0.0)
    return exp(min(0.0, lgamma(classes + 1) - images * divergence))

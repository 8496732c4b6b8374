"""DD-Ranking's scores LRS and ARS: the trainings that they compare, which the plan adds and the report reads.

Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", 2025.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from dgs_lightning.errors import InputError, listed
from dgs_lightning.runs import layout

ScoreName = Literal["lrs", "ars"]
RANDOM = "random"  # row of the random set that a set of the same IPC is compared with
WEIGHT = 0.5  # of the first term of a score


class Compared(NamedTuple):
    """Trainings that a score compares.

    Attributes:
        row: Row of the table whose sets the networks are trained on.
        protocol: Protocol of the trainings.
    """

    row: str
    protocol: str


def compared_by(score: ScoreName, row: str, protocol: str) -> dict[str, Compared]:
    """The trainings that a score of a row compares, under the names of their accuracies.

    Args:
        score: The score.
        row: The row.
        protocol: The row's own protocol, ``hard`` or ``soft``.
    """
    augmented = {"own": Compared(row, protocol), "random": Compared(RANDOM, protocol)}
    if score == "lrs":
        full, own = (Compared(on, layout.PROTOCOL) for on in (layout.FULL, row))
        return {"full_hard": full, "own_hard": own, **augmented}
    plain = layout.unaugmented(protocol)
    return {**augmented, "own_unaugmented": Compared(row, plain), "random_unaugmented": Compared(RANDOM, plain)}


def check_scores(
    scores: Sequence[ScoreName], networks: Collection[str], variants: Collection[str], above: str = ""
) -> None:
    """Check that there are trainings that scores can compare.

    Args:
        scores: The scores that an experiment asks for, if any.
        networks: Its networks.
        variants: Names of its variants.
        above: Text before the names of settings in errors.

    Raises:
        InputError: If no network is trained, or a variant has the name of a row that scores compare all rows with.
    """
    if scores and not networks:
        found, expected = f"{listed(scores)}, but no networks", "networks, whose trainings scores compare"
        raise InputError.setting(f"{above}scores", found, expected, "Set networks=[convnet3], or remove scores")
    for row in (RANDOM, layout.FULL):
        if scores and row in variants:
            found, expected = "a variant with the name of a row that scores compare all rows with", "another name"
            raise InputError.setting(f"{above}variants.{row}", found, expected, "Rename the variant, or remove scores")

"""How well the classifiers of a run recognise its images, and warnings where the run's numbers say little."""

from collections.abc import Iterator, Mapping

from dgs_lightning.data.classes import extremes, is_imbalanced
from dgs_lightning.data.order import ENOUGH, Order
from dgs_lightning.errors import counted, listed
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.names import pool_name, show
from dgs_lightning.reporting.records import Recognition
from dgs_lightning.runs.layout import GIVEN_POOL, IMPORTED, ORIGINAL, scored_as

REMEDY = "use a pretrained DiT or train longer"
WEAK = "train it longer (cross_fit.trainer.max_steps), give it more images, or name a pretrained one (estimator)"
UNFIT = "name one that was trained on such images, or none (estimator), and it is trained on the originals"
Pools = Mapping[str, Recognition]  # by the name of the pool


def recognition(run: RunFolder) -> tuple[list[str], list[str]]:
    """How well the classifiers of a run recognise its images, and what makes its numbers say little, in sentences."""
    estimator = run.recognised(ORIGINAL)
    pools = {pool: found for pool in run.pools if (found := run.legible(pool)) is not None}
    sentences = (_estimator_sentence(run, estimator), _legibility_sentence(run, pools))
    return list(filter(None, sentences)), list(_warnings(run, estimator, pools))


def _estimator_sentence(run: RunFolder, estimator: Recognition | None) -> str:
    """How well the difficulty estimator recognises the original images; empty where they are not scored."""
    if estimator is None:
        return ""
    unseen = " that it was not trained on" if run.is_cross_fitted else ""
    classes = counted(len(run.counts(ORIGINAL)), "class")
    return (
        f"The difficulty estimator recognises {estimator.share:.1%} of the original images{unseen}, averaged over "
        f"{classes}; chance is {1 / estimator.labels:.1%}."
    )


def _legibility_sentence(run: RunFolder, pools: Pools) -> str:
    """How well the judge, or without a judge the difficulty estimator, recognises the pools; empty without pools."""
    by = {"an independent classifier": list[str](), "the difficulty estimator": list[str]()}
    for pool, found in pools.items():
        who = "an independent classifier" if run.is_judged(pool) else "the difficulty estimator"
        by[who].append(f"{show('method', pool)} {found.share:.1%}")
    return " ".join(
        f"Pool images whose class {who} recognises: {', '.join(texts)}." for who, texts in by.items() if texts
    )


def _warnings(run: RunFolder, estimator: Recognition | None, pools: Pools) -> Iterator[str]:
    """What makes the numbers of a run say little: imbalanced classes, a weak estimator, a pool that is not legible."""
    counts = run.counts(ORIGINAL)
    if is_imbalanced(counts):
        yield (
            f"The classes have {' to '.join(extremes(counts, run.readable))} images. Where the validation images are "
            "as uneven, their accuracy is mostly that of the large classes; result.json of a training has the accuracy "
            "of each class."
        )
    if estimator and estimator.is_poor():
        remedy = WEAK if run.settings.get("estimator") is None else UNFIT
        yield f"The difficulty estimator is weak ({estimator.share:.1%}), so difficulties say little: {remedy}."
    for pool, found in pools.items():
        if found.is_poor(1.0 if run.is_judged(pool) or estimator is None else estimator.share):
            remedy = "see that its class folders have the right labels" if pool == GIVEN_POOL else REMEDY
            yield f"{pool_name(pool)}, {found.share:.1%} recognised: these images are not recognisable; {remedy}."
    for name in run.imported:
        yield from _order_warnings(name, Order.of(run.answers(scored_as(f"{IMPORTED}/{name}"))), estimator)


def _order_warnings(name: str, order: Order, estimator: Recognition | None) -> Iterator[str]:
    """What the answers of the estimator say of the classes of a set of other people."""
    seen = f"{name}: the difficulty estimator recognises {order.recognised:.1%} of the images of this set"
    if order.is_wrong:
        yield (
            f"{seen}, but {order.best:.1%} if its classes were in another order: they are in a wrong order, so its "
            "accuracies and difficulties say nothing. Say the right one (classes of the set)."
        )
    elif len(order.exchanged) > 1 and order.images >= ENOUGH * order.classes / len(order.exchanged):
        moved = listed((f"{label} as {order.seen[label]}" for label in order.exchanged), 10)
        yield f"{seen}, and sees most images of some classes as others ({moved}): see that these are not exchanged."
    elif order.classes and Recognition(order.recognised, order.classes).is_poor(estimator.share if estimator else 1.0):
        yield (
            f"{seen}; chance is {1 / order.classes:.1%}. It may not know such images, so it cannot tell whether the "
            "classes of the set are in the right order."
        )

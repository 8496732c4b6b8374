"""Labels of other people's sets as those of our classes: by name, by WordNet id, or by number."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from dgs_lightning.data.classes import class_list, readable_name
from dgs_lightning.data.named import letters
from dgs_lightning.data.records import check_label
from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.source import Source


class Mapped(NamedTuple):
    """The label of each image, and how it was found, in words."""

    labels: list[str]
    how: str


def mapped(source: Source, known: Sequence[str] | None, classes: str | Sequence[str] | None) -> Mapped:
    """The labels of a set as those of known classes.

    Args:
        source: The set.
        known: Labels of the classes that it must have; none: its own are kept.
        classes: Labels in the order of the numbers of the set's classes, or the name of a class list. By default the
            set's own names of its classes say the order, else it is that of the known labels, sorted.

    Raises:
        InputError: If a label is of no known class, or a class has no image.
    """
    order = None if classes is None else class_list(classes) if isinstance(classes, str) else [*classes]
    known = known or order
    if order is not None and known is not None and (other := set(order) ^ set(known)):
        found = f"{len(order)} classes, of which others differ ({listed(sorted(other))})"
        raise InputError("classes", found, f"the {len(known)} labels of the images, in another order", "Correct it")
    numbers = {int(label) for label in source.labels if isinstance(label, int)}
    texts = {label for label in source.labels if isinstance(label, str)}
    if numbers and texts:
        found = f"numbers ({listed(sorted(numbers))}) and names ({listed(sorted(texts))})"
        raise InputError(source.path, f"labels that are {found}", "labels of one kind", "Correct the labels")
    if texts:
        own, how = _of_names(texts, known, order, source)
    elif source.classes is not None and order is None:
        _check_numbers(numbers, len(source.classes), source.path, "names of classes in the file")
        by_name, how = _of_names({source.classes[number] for number in numbers}, known, None, source)
        own = {number: by_name[source.classes[number]] for number in numbers}
    else:
        own, how = _of_numbers(numbers, order or known, source, given=order is not None)
    labels = [own[label] for label in source.labels]
    _check(labels, known, source.path)
    return Mapped(labels, how)


def _of_names(
    names: Collection[str], known: Sequence[str] | None, order: Sequence[str] | None, source: Source
) -> tuple[dict[int | str, str], str]:
    """The label for each name of a class: the same, one with this readable name, or that of this number."""
    if known is None or set(names) <= set(known):
        return {name: name for name in names}, "by name"
    readable: dict[str, list[str]] = {}
    for label in known:
        readable.setdefault(_plain(readable_name(label)), []).append(label)
    alike = {name: [name] if name in known else readable.get(_plain(name), []) for name in names}
    if all(len(labels) == 1 for labels in alike.values()):
        return {name: labels[0] for name, labels in alike.items()}, "by readable name"
    if all(name.isdecimal() for name in names):
        numbers, how = _of_numbers({int(name) for name in names}, order or known, source, given=order is not None)
        return {name: numbers[int(name)] for name in names}, how
    unknown = sorted(name for name, labels in alike.items() if len(labels) != 1)
    remedy = "Rename the classes of the set, or number them from 0 and say their order with classes=[...]"
    raise InputError.labels(source.path, f"classes among {listed(known, 10)}", remedy, unknown=unknown)


def _plain(name: str) -> str:
    """Letters and digits of a name in small letters."""
    return "".join(filter(str.isalnum, letters(name)))


def _of_numbers(
    numbers: Collection[int], order: Sequence[str] | None, source: Source, *, given: bool
) -> tuple[dict[int | str, str], str]:
    """The label for each number of a class."""
    if order is None:
        return {number: str(number) for number in numbers}, "by number"
    if not given:
        order = sorted(order)
    _check_numbers(numbers, len(order), source.path, "classes")
    how = f"by number, in the {'given' if given else 'sorted'} order {listed(order, 10)}"
    return {number: order[number] for number in numbers}, how


def _check_numbers(numbers: Collection[int], classes: int, path: Path, of: str) -> None:
    """Refuse the number of a class that there is not."""
    if wrong := sorted(number for number in numbers if not 0 <= number < classes):
        found = f"{len(wrong)} unknown numbers of classes ({listed(wrong)})"
        remedy = "Correct the labels, or give images of the same classes"
        raise InputError(path, found, f"numbers from 0 to {classes - 1}, for {classes} {of}", remedy)


def _check(labels: Sequence[str], known: Sequence[str] | None, path: Path) -> None:
    """Refuse labels that are no names of folders, and a set without images of a known class."""
    found = set(labels)
    for label in found:
        try:
            check_label(label)
        except ValueError as error:
            raise InputError(path, error, "names of classes that can be names of folders", "Rename them") from None
    if missing := sorted(set(known or ()) - found):
        remedy = "Add their images, or compare with data of the same classes"
        raise InputError.labels(path, f"images of all {len(set(known or ()))} classes", remedy, missing=missing)

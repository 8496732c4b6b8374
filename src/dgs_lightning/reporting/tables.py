"""Results laid out in the form of the paper's Tables 1 to 7, beside the published numbers."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dgs_lightning.reporting.names import (
    DATASETS,
    METHODS,
    NETWORKS,
    VARIANTS,
    show_dataset,
    show_method,
    show_network,
    show_variant,
    table_order,
)
from dgs_lightning.reporting.published import PUBLISHED, Score, Setting, published

_NOTE = "Top-1 accuracy in %, {accuracy}; mean ± sample standard deviation (repeats: {repeats})"
_PAPER = "; in brackets the paper's value and our difference from it"
_BEST = "; in bold the best of each comparison"
_ACCURACY = {"best": "best evaluation of each training", "last": "at the end of training"}
_HEADINGS = {"dataset": "Data set", "network": "Network", "method": "Method", "ipc": "IPC", "variant": "Variant"}
_SHOW: Mapping[str, Callable[[Any], str]] = {
    "dataset": show_dataset,
    "network": show_network,
    "method": show_method,
    "ipc": str,
    "variant": show_variant,
}
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "dataset": DATASETS,
    "network": NETWORKS,
    "method": METHODS,
    "variant": VARIANTS,
}


@dataclass(frozen=True, slots=True)
class Form:
    """How one of the paper's tables is laid out, in fields of :class:`~dgs_lightning.reporting.published.Setting`.

    Attributes:
        title: What it compares.
        rows: Fields that make a row.
        columns: Fields that make a column; what is in neither is the same in the whole table.
        contest: Fields whose values cells share that compete for bold; ``family`` stands for the methods that
            Table 1 compares with each other.
        variants: Beginnings of the variants that belong here; none: results without a variant.
        plain: Variant that a result without one counts as.
        methods: Methods that it is about; none: all.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    contest: tuple[str, ...]
    variants: tuple[str, ...] = ()
    plain: str = ""
    methods: tuple[str, ...] = ()

    @property
    def fixed(self) -> tuple[str, ...]:
        """Fields that have one value in the whole table."""
        return tuple(name for name in Setting._fields if name not in (*self.rows, *self.columns))


_SAMPLED = ("dgs_ori", "dit_dgs", "minimax_dgs", "pool_dgs")
FORMS: Mapping[int, Form] = {
    1: Form("Methods and networks", ("ipc", "network"), ("method",), ("ipc", "network", "family")),
    2: Form("Methods", ("method",), ("ipc",), ("ipc",)),
    3: Form("Data sets", ("dataset", "ipc"), ("method",), ("dataset", "ipc")),
    4: Form(
        "Sampling distributions",
        ("variant",),
        ("ipc",),
        ("ipc",),
        ("hill", "ground", "slope", "cliff", "scale"),
        "scale",
        _SAMPLED,
    ),
    5: Form("Size of the image pool", ("variant",), ("ipc",), ("ipc",), ("pool",), "pool5", _SAMPLED),
    6: Form("Validation sets", ("variant", "method"), ("ipc",), ("variant", "ipc"), ("val_",), "val_original"),
    7: Form(
        "Difficulty-aware guidance", ("method", "variant"), ("ipc",), ("ipc",), ("stop",), "stop25", ("mgd3", "dag")
    ),
}
_FAMILIES = (("dit", "dit_dgs"), ("minimax", "minimax_dgs"), ("pool", "pool_dgs"), ("mgd3", "dag"))


@dataclass(frozen=True, slots=True)
class Cell:
    """An accuracy of ours, the paper's, both or neither.

    Attributes:
        setting: What it was measured on.
        ours: Our score, if there is one.
        paper: The published score, if there is one.
        best: Whether ours is the highest of its comparison.
    """

    setting: Setting
    ours: Score | None
    paper: Score | None
    best: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, in percentage points."""
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper.mean

    @property
    def own_text(self) -> str:
        """Our score as shown: ``36.9 ± 0.5``."""
        if self.ours is None:
            return ""
        return f"{self.ours.mean:.1f}" + (f" ± {self.ours.std:.1f}" if self.ours.std is not None else "")

    @property
    def paper_text(self) -> str:
        """The published mean and our difference as shown: ``(37.8, -0.9)``."""
        if self.paper is None:
            return ""
        difference = "" if self.difference is None else f", {round(self.difference, 1) + 0.0:+.1f}"
        return f"({self.paper.mean:.1f}{difference})"


@dataclass(frozen=True, slots=True)
class Table:
    """A filled table.

    Attributes:
        number: Which of the paper's tables it has the form of.
        title: What it compares, and on what.
        note: How to read a cell.
        headings: Headings of the label columns, then of the cell columns.
        rows: For each row its labels and its cells.
    """

    number: int
    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]

    @property
    def slug(self) -> str:
        """Name of its files: ``table1-digits``."""
        fixed = dict.fromkeys(getattr(self.rows[0][1][0].setting, name) for name in FORMS[self.number].fixed)
        return "-".join([f"table{self.number}", *filter(None, fixed)])


def build_tables(
    results: Mapping[Setting, Score],
    numbers: Iterable[int] | None = None,
    accuracy: Literal["best", "last"] = "best",
    repeats: str = "3",
    unlike_the_paper: str = "",
) -> list[Table]:
    """Lay results out in the form of the paper's tables.

    Args:
        results: Our scores.
        numbers: Forms to use. By default Table 1, and those of the others that our results vary what they
            vary, or for which there are published numbers.
        accuracy: Which accuracy the scores are, for the note.
        repeats: How many trainings are behind a score, for the note.
        unlike_the_paper: How our trainings differ from the paper's, for the note of tables with its numbers.

    Returns:
        The tables that have at least one cell of ours, one for each combination of what is fixed in a table.
    """
    note = _NOTE.format(accuracy=_ACCURACY[accuracy], repeats=repeats)
    paper = _PAPER + (f" (not like for like: {unlike_the_paper})" if unlike_the_paper else "")
    tables = []
    for number in FORMS if numbers is None else numbers:
        form = FORMS[number]
        taken = _taken(form, results)
        groups: dict[tuple[Any, ...], dict[Setting, Score]] = defaultdict(dict)
        for setting, score in taken.items():
            groups[tuple(getattr(setting, name) for name in form.fixed)][setting] = score
        for fixed, group in sorted(groups.items()):
            if numbers is not None or number == 1 or _belongs(number, group):
                tables.append(_fill(number, dict(zip(form.fixed, fixed, strict=True)), group, note, paper))
    return tables


def _taken(form: Form, results: Mapping[Setting, Score]) -> dict[Setting, Score]:
    """Results that can stand in a form, those without a variant under the form's plain one."""
    about = {s: score for s, score in results.items() if not form.methods or s.method in form.methods}
    plain = {s._replace(variant=form.plain): score for s, score in about.items() if not s.variant}
    return plain | {s: score for s, score in about.items() if form.variants and s.variant.startswith(form.variants)}


def _belongs(number: int, group: Mapping[Setting, Score]) -> bool:
    """Whether a table was asked for by what was run: it varies what was varied, or has numbers to compare with."""
    if number in (4, 5, 6):
        return any(setting.variant != FORMS[number].plain for setting in group)
    return any(published(number, setting) for setting in group)


def _fill(number: int, fixed: Mapping[str, Any], group: Mapping[Setting, Score], note: str, paper: str) -> Table:
    form = FORMS[number]
    settings = [*group, *_published_beside(number, group)]
    rows, columns = _values(settings, form.rows), _values(settings, form.columns)
    grid = {
        (row, column): Setting(
            **fixed, **dict(zip(form.rows, row, strict=True)), **dict(zip(form.columns, column, strict=True))
        )
        for row, column in itertools.product(rows, columns)
    }
    best = _best(form, group)
    cells = {
        place: Cell(setting, group.get(setting), published(number, setting), setting in best)
        for place, setting in grid.items()
    }
    shown = [row for row in rows if any(cells[row, column].ours or cells[row, column].paper for column in columns)]
    return Table(
        number,
        ", ".join([form.title, *(_SHOW[name](value) for name, value in fixed.items() if value)]),
        note + paper * any(cell.paper for cell in cells.values()) + _BEST * bool(best) + ".",
        (*(_HEADINGS[name] for name in form.rows), *(_column_heading(form.columns, column) for column in columns)),
        tuple((_show(form.rows, row), tuple(cells[row, column] for column in columns)) for row in shown),
    )


def _published_beside(number: int, group: Mapping[Setting, Score]) -> list[Setting]:
    """Published settings on a data set, network and IPC that we have results for: other methods and variants."""
    ours = {(s.dataset, s.network, s.ipc) for s in group}
    names = FORMS[number].fixed
    fixed = {tuple(getattr(s, name) for name in names) for s in group}
    return [
        s
        for s in PUBLISHED[number]
        if (s.dataset, s.network, s.ipc) in ours and tuple(getattr(s, name) for name in names) in fixed
    ]


def _values(settings: Iterable[Setting], names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Distinct values of some fields, in the order of the paper's tables."""
    found = {tuple(getattr(setting, name) for name in names) for setting in settings}

    def order(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            value if name == "ipc" else table_order(_KNOWN[name], value)
            for name, value in zip(names, values, strict=True)
        )

    return sorted(found, key=order)


def _best(form: Form, group: Mapping[Setting, Score]) -> set[Setting]:
    """Settings with the highest score, as shown, of each contest of two or more; the full data set does not compete."""
    contests: dict[tuple[Any, ...], list[Setting]] = defaultdict(list)
    for setting in group:
        if setting.method != "full":
            key = tuple(
                _family(setting.method) if name == "family" else getattr(setting, name) for name in form.contest
            )
            contests[key].append(setting)
    shown = {setting: round(score.mean, 1) for setting, score in group.items()}
    return {
        setting
        for rivals in contests.values()
        if len(rivals) > 1
        for setting in rivals
        if shown[setting] == max(shown[rival] for rival in rivals)
    }


def _family(method: str) -> tuple[str, ...]:
    """Methods that Table 1 compares with a method: with and without DGS, or all that select from the originals."""
    return next((members for members in _FAMILIES if method in members), ())


def _show(names: tuple[str, ...], values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(_SHOW[name](value) for name, value in zip(names, values, strict=True))


def _column_heading(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return ", ".join(
        f"IPC {text}" if name == "ipc" else text for name, text in zip(names, _show(names, values), strict=True)
    )

"""Results laid out in the form of the paper's Tables 1 to 7, beside the published numbers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from dgs_lightning.reporting.names import DISTRIBUTIONS, show, table_order
from dgs_lightning.reporting.published import (
    DEFAULT_VARIANTS,
    PUBLISHED,
    RATIOS,
    Accuracy,
    Score,
    Setting,
    published,
)
from dgs_lightning.runs.layout import FULL
from dgs_lightning.runs.methods import METHODS

_BEST = " In bold: the best score of each comparison."
_ACCURACY = {"best": ", from the best evaluation of each training", "last": ", from the end of each training"}
_HEADINGS = {"dataset": "Data set", "network": "Network", "method": "Method", "ipc": "IPC", "variant": "Variant"}


@dataclass(frozen=True, slots=True)
class Form:
    """The layout of one of the paper's tables, in fields of :class:`~dgs_lightning.reporting.published.Setting`."""

    title: str  # subject of the table
    rows: tuple[str, ...]  # fields that make a row
    column: str  # field that makes a column; all other fields have one value in the whole table
    contest: tuple[str, ...]  # cells that share these fields, or the family of the method, compete for bold
    variants: tuple[str, ...] = ()  # prefixes of the variants that the table shows; empty if it shows none
    methods: tuple[str, ...] = ()  # methods that the table shows; empty for all
    ratio: bool = False  # whether the second label is the share of the training images that a set keeps
    note: str = ""  # what a reader of this table must know

    @property
    def fixed(self) -> tuple[str, ...]:
        """Fields that have one value in the whole table."""
        return tuple(name for name in Setting._fields if name not in (*self.rows, self.column))


_SAMPLED = tuple(method.key for method in METHODS.values() if method.rule == "dgs")
_BY_VARIANT = (("variant",), "ipc", ("ipc",))  # rows, column, contest
_STOP = (
    " A step is guided while its index, from 49 down to 0, is above the stop, as in the code of MGD3. Stop 50 then "
    "guides no step, and DAG equals DiT; the paper's numbers do not (IPC 10: 61.4 against 59.1). With guided: below, "
    "as in rows with the word below, a step is guided while its index is below the stop."
)
FORMS: Mapping[int, Form] = {
    1: Form("Methods and networks", ("ipc", "network"), "method", ("ipc", "network", "family"), ratio=True),
    2: Form("Methods", ("method",), "ipc", ("ipc",)),
    3: Form("Data sets", ("dataset", "ipc"), "method", ("dataset", "ipc")),
    4: Form("Sampling distributions", *_BY_VARIANT, DISTRIBUTIONS, _SAMPLED),
    5: Form("Size of the image pool", *_BY_VARIANT, ("pool",), _SAMPLED),
    6: Form("Validation sets", ("variant", "method"), "ipc", ("variant", "ipc"), ("val_",)),
    7: Form(
        "Difficulty-aware guidance", ("method", "variant"), "ipc", ("ipc",), ("stop",), ("mgd3", "dag"), note=_STOP
    ),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting's accuracy: ours, the paper's, both or neither.

    ``best`` if ours is the highest of its contest. ``compared`` if the difference from the paper's is shown.
    """

    setting: Setting
    ours: Score | None
    paper: Score | None
    best: bool = False
    compared: bool = True

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's, in percentage points; None where the two are not compared."""
        return self.ours.mean - self.paper.mean if self.compared and self.ours and self.paper else None

    @property
    def own_text(self) -> str:
        """Our score as shown: ``36.9 ± 0.5``."""
        return "" if self.ours is None else str(self.ours)

    @property
    def paper_text(self) -> str:
        """The published mean and our difference as shown: ``(37.8, -0.9)``."""
        if self.paper is None:
            return ""
        difference = "" if self.difference is None else f", {round(self.difference, 1) + 0.0:+.1f}"
        return f"({self.paper.mean:.1f}{difference})"


class Ratio(NamedTuple):
    """Share of the training images that a set keeps, in ``[0, 1]``: ours and the paper's, None where not known."""

    ours: float | None = None
    paper: float | None = None

    def __str__(self) -> str:
        """The ratio as shown: ``4.0 % (3.8 %)``."""
        texts = ("" if ratio is None else f"{ratio:.1%}".replace("%", " %") for ratio in self)
        return "{} ({})".format(*texts).replace(" ()", "").strip()


@dataclass(frozen=True, slots=True)
class Table:
    """A filled table."""

    number: int  # of the paper's table whose form it has
    title: str  # its subject, and the values that are the same in the whole table
    note: str  # how to read a cell
    headings: tuple[str, ...]  # of the label columns, then of the cell columns
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]  # labels and cells of each row, of which there is one
    ratios: Mapping[int, Ratio] = field(default_factory=dict)  # by IPC; empty if the table shows none

    @property
    def labels(self) -> int:
        """Number of label columns."""
        return len(self.rows[0][0])

    @property
    def lines(self) -> list[tuple[str | Cell, ...]]:
        """The labels and the cells of each row together."""
        return [(*labels, *cells) for labels, cells in self.rows]

    @property
    def full_title(self) -> str:
        """The title with the table's number."""
        return f"Table {self.number}. {self.title}"

    @property
    def slug(self) -> str:
        """Name of the table's files, without ending: ``table1-digits``."""
        fixed = dict.fromkeys(_values(self.rows[0][1][0].setting, FORMS[self.number].fixed))
        return "-".join([f"table{self.number}", *filter(None, fixed)])


def build_tables(
    results: Mapping[Setting, Score],
    numbers: Iterable[int] | None = None,
    accuracy: Accuracy = "best",
    measured: str = "3 trainings on one set",
    differences: str = "",
    compared: bool | None = None,
    ratios: Mapping[tuple[str, int], float] | None = None,
) -> list[Table]:
    """Lay results out in the form of the paper's tables.

    Args:
        results: Our scores.
        numbers: Numbers of the paper's tables. By default Table 1, and each other table that has published numbers for
            our settings or varies the same field as our results.
        accuracy: Which accuracy the scores are; the note says it.
        measured: What each score averages, such as ``3 draws``; the note says it.
        differences: How our set-up differs from the paper's, as a part of a sentence of the note; empty if it does not.
        compared: Whether a cell shows our mean minus the paper's. By default it does where the set-up is the paper's.
        ratios: Share of the training images that a set keeps, by data set and IPC, where it is known.

    Returns:
        A table for each combination of the form's fixed values that we have results for.
    """
    note = f"Top-1 accuracy in %{_ACCURACY[accuracy]}: mean ± sample standard deviation over {measured}."
    compared = not differences if compared is None else compared
    paper = " In brackets: the paper's mean" + (", and our mean minus the paper's" if compared else "")
    paper += f"; {differences}." if differences else "."
    tables = []
    for number in FORMS if numbers is None else numbers:
        form = FORMS[number]
        groups: dict[tuple[Any, ...], dict[Setting, Score]] = defaultdict(dict)
        for setting, score in _results_for(number, results).items():
            groups[_values(setting, form.fixed)][setting] = score
        for _, group in sorted(groups.items()):
            if numbers is not None or number == 1 or _is_relevant(number, group):
                table = _fill(number, group, note, paper, compared)
                tables.append(_with_ratios(table, ratios or {}) if form.ratio else table)
    return tables


def _results_for(number: int, results: Mapping[Setting, Score]) -> dict[Setting, Score]:
    """The results that a table can show; those without a variant get the table's default variant."""
    form, variant = FORMS[number], DEFAULT_VARIANTS.get(number, "")
    shown = {s: score for s, score in results.items() if not form.methods or s.method in form.methods}
    default = {s._replace(variant=variant): score for s, score in shown.items() if not s.variant}
    varied = {s: score for s, score in shown.items() if form.variants and s.variant.startswith(form.variants)}
    return default | {s: score for s, score in varied.items() if ", " not in s.variant}  # one change at a time


def _is_relevant(number: int, group: Mapping[Setting, Score]) -> bool:
    """Whether our results vary what the table varies, or the table has published numbers for them."""
    if number in (4, 5, 6):
        return any(setting.variant != DEFAULT_VARIANTS[number] for setting in group)
    return any(published(number, setting) for setting in group)


def _fill(number: int, group: Mapping[Setting, Score], note: str, paper: str, compared: bool) -> Table:
    """The table of a group of results that share the form's fixed values.

    It shows published methods and variants, too, on each data set, network and IPC that we have results for.
    """
    form, first = FORMS[number], next(iter(group))
    names = [name for name in Setting._fields if name in {"dataset", "network", "ipc", *form.fixed}]
    ours = {_values(setting, names) for setting in group}
    settings = [*group, *(setting for setting in PUBLISHED[number] if _values(setting, names) in ours)]
    rows, columns = _distinct(settings, form.rows), _distinct(settings, (form.column,))
    best = _best(form, group)

    def cell(row: tuple[Any, ...], column: tuple[Any, ...]) -> Cell:
        setting = first._replace(**dict(zip((*form.rows, form.column), (*row, *column), strict=True)))
        return Cell(setting, group.get(setting), published(number, setting), setting in best, compared)

    filled = [(_show(form.rows, row), tuple(cell(row, column) for column in columns)) for row in rows]
    filled = [(labels, cells) for labels, cells in filled if any(c.ours or c.paper for c in cells)]
    has_paper = any(c.paper for _, cells in filled for c in cells)
    fixed = [text for text in _show(form.fixed, _values(first, form.fixed)) if text]
    headings = (f"IPC {column}" if form.column == "ipc" else show(form.column, column) for (column,) in columns)
    return Table(
        number,
        ", ".join([form.title, *fixed]),
        note + paper * has_paper + _BEST * bool(best) + form.note,
        (*(_HEADINGS[name] for name in form.rows), *headings),
        tuple(filled),
    )


def _with_ratios(table: Table, known: Mapping[tuple[str, int], float]) -> Table:
    """A table with the ratios of its IPCs after its first label, which is the IPC; unchanged if none is known."""
    settings = [cells[0].setting for _, cells in table.rows]
    places = {setting.ipc: (setting.dataset, setting.ipc) for setting in settings}
    ratios = {ipc: Ratio(known.get(place), RATIOS.get(place)) for ipc, place in places.items()}
    if not any(map(any, ratios.values())):
        return table
    papers = ", and the paper's in brackets" if any(ratio.paper for ratio in ratios.values()) else ""
    note = f"{table.note} Ratio: share of the training images that a set keeps{papers}."
    texts = (str(ratios[setting.ipc]) for setting in settings)
    rows = [((ipc, text, *labels), cells) for ((ipc, *labels), cells), text in zip(table.rows, texts, strict=True)]
    headings = (table.headings[0], "Ratio", *table.headings[1:])
    return replace(table, note=note, headings=headings, rows=tuple(rows), ratios=ratios)


def _values(setting: Setting, names: Iterable[str]) -> tuple[Any, ...]:
    """The values of some fields of a setting."""
    return tuple(getattr(setting, name) for name in names)


def _show(names: Iterable[str], values: Iterable[Any]) -> tuple[str, ...]:
    """The names shown for some fields' values."""
    return tuple(show(name, value) for name, value in zip(names, values, strict=True))


def _distinct(settings: Iterable[Setting], names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """The distinct values of some fields, in the order of the paper's tables."""
    found = {_values(setting, names) for setting in settings}
    return sorted(found, key=lambda values: [table_order(*field) for field in zip(names, values, strict=True)])


def _best(form: Form, group: Mapping[Setting, Score]) -> set[Setting]:
    """Settings with the highest score, as shown, of each contest of two or more; the full data set does not compete."""
    contests: dict[tuple[Any, ...], dict[Setting, float]] = defaultdict(dict)
    for setting, score in group.items():
        if setting.method != FULL:
            contests[_values(setting, form.contest)][setting] = round(score.mean, 1)
    rivalries = [shown for shown in contests.values() if len(shown) > 1]
    return {setting for shown in rivalries for setting in shown if shown[setting] == max(shown.values())}

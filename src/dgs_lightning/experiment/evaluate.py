"""``dgs evaluate``: the row of one set and its page, without an experiment file."""

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.configs import ROOT
from dgs_lightning.data.classes import list_with
from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.hub import local_copy
from dgs_lightning.exchange.readers import read_source
from dgs_lightning.exchange.source import Reading, Source
from dgs_lightning.experiment.changes import parsed_change
from dgs_lightning.experiment.run import ExperimentRun, run_and_print
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.runs import layout
from dgs_lightning.runs.methods import SET

OF_DATA = {"digits": "quickstart"}  # data set -> shipped experiment, where it has another name


def arguments(args: list[str]) -> Namespace:
    """The options of the command line."""
    parser = experiment_parser(
        "evaluate",
        "Evaluate one set as a row of an experiment: difficulty, distance, accuracy. Data, networks and lengths of "
        "trainings are those of the run that the set lies in, or of the shipped experiment of its data set.",
        what="source",
        words="file or folder of the set, or hf://USER/NAME; 'dgs import --help' lists the formats",
    )
    parser.add_argument("--experiment", metavar="NAME", help="another experiment whose data and networks are used")
    parser.add_argument("--protocol", nargs="+", choices=[layout.PROTOCOL, layout.SOFT], help="protocols of evaluation")
    parser.add_argument("--network", nargs="+", metavar="NAME", help="networks that are trained on the set")
    parser.add_argument("--val", metavar="FOLDER", help="other validation images: a tree of class folders")
    parser.add_argument(
        "--import", metavar="KEY=VALUE", action="append", default=[], dest="reading", help="a setting of dgs import"
    )
    return parser.parse_args(args)


def main(args: list[str]) -> None:
    """Evaluate the set that the command line names."""
    options = arguments(args)
    settings = {"path": options.source}
    for change in options.reading:
        settings |= parsed_change(change, {})[1]
    source = _read(settings)
    name = re.sub(r"\W", "_", Path(options.source.rstrip("/")).stem, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"set_{name}"
    base = options.experiment or experiment_of(source)
    experiment = load_experiment(base, options.set, options.output or f"runs/evaluate-{name}")
    run_and_print(ExperimentRun(evaluation(experiment, name, settings, _ipc(source), vars(options))))


def evaluation(
    base: Experiment, name: str, settings: Mapping[str, Any], ipc: int, options: Mapping[str, Any]
) -> Experiment:
    """An experiment whose only row is a set. As any row without chance, it has draws x repeats trainings.

    Args:
        base: The experiment that the data, networks and lengths of trainings come from.
        name: Name of the set.
        settings: Settings of its import.
        ipc: Its images per class.
        options: ``protocol``, ``network`` and ``val``, which take the place of settings of the experiment if they are
            given.
    """
    networks = options.get("network") or base.networks
    if not networks:
        raise InputError.unset("--network", "at least one network to train on the set", "convnet6")
    return replace(
        base,
        title=f"The set {name}, as in {base.name}",
        name=f"evaluate-{name}",
        methods=[f"{SET}{name}"],
        sets={name: {**settings, "ipc": ipc}},
        ipc=ipc,
        variants={},
        validation=[],
        generator=None,
        generator_methods=[],
        networks=networks,
        protocols=options.get("protocol") or base.protocols,
        val=options.get("val") or base.val,
    )


def experiment_of(source: Source) -> str:
    """The experiment that a set is evaluated as: that of the run that it lies in, or the shipped one of its data set.

    Raises:
        InputError: If there is neither.
    """
    run = source.path.absolute().parents[1] if len(source.path.absolute().parents) > 1 else source.path
    if source.path.absolute().parent.name == layout.DISTILLED and (run / layout.EXPERIMENT).is_file():
        return str(run / layout.EXPERIMENT)
    known = list_with({str(label) for label in source.labels})
    names = [name for name in (known, *_data_sets(source.card)) if name]
    for name in names:
        if (ROOT / "experiments" / f"{OF_DATA.get(name, name)}.yaml").is_file():
            return OF_DATA.get(name, name)
    found = f"a set of the data {listed(names)}, for which there is none" if names else "a set that names no data"
    expected = "an experiment that says data, networks and lengths of trainings"
    raise InputError(source.path, found, expected, "Name one, such as --experiment quickstart, or a YAML file")


def _data_sets(card: Mapping[str, Any]) -> Iterator[str]:
    """Names of the data sets that a set was made from, by its card and the cards in it."""
    if card.get("kind") == "original":
        yield str(card.get("name")).removesuffix("/train")
    for origin in card.get("provenance", ()):
        if isinstance(origin, dict) and isinstance(origin.get("card"), dict):
            yield from _data_sets(origin["card"])


def _read(settings: Mapping[str, Any]) -> Source:
    """The set, with the settings of ``dgs import`` that its reader has."""
    place, _ = local_copy(settings["path"])
    own = {field.name for field in fields(Reading)}
    return read_source(place, settings.get("format"), Reading(**{k: v for k, v in settings.items() if k in own}))


def _ipc(source: Source) -> int:
    """Images of each class.

    Raises:
        InputError: If the classes have different numbers.
    """
    counts = Counter(source.labels)
    if len(sizes := set(counts.values())) != 1:
        found = f"{min(sizes)} to {max(sizes)} images of a class" if sizes else "no images"
        raise InputError(source.path, found, "a set with as many images of each class", "Give such a set")
    return sizes.pop()

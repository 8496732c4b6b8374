"""From an experiment to its stages: which commands run, with which settings, in which order."""

from collections.abc import Callable
from itertools import product
from pathlib import PurePosixPath
from typing import Any

from dgs_lightning.configs import expand, load_config, merge
from dgs_lightning.errors import InputError, listed
from dgs_lightning.experiment.changes import nested
from dgs_lightning.experiment.sections import classification, for_whole_set, wiring, with_classes
from dgs_lightning.experiment.settings import Experiment, variant_of
from dgs_lightning.experiment.shared import Place, SharedStages
from dgs_lightning.experiment.stage import InRun, Settings, Stage, given, replaced, within
from dgs_lightning.runs import layout
from dgs_lightning.runs.ddranking import compared_by
from dgs_lightning.runs.layout import SetName, Training
from dgs_lightning.runs.methods import FEATURE_RULES, GIVEN, METHODS, ORIGINALS, SET, MadeBy, Method, Use, find_method
from dgs_lightning.runs.stages import SECTIONS
from dgs_lightning.seeding import draw_seed, training_seed

SOFT_LABELS = "classify/rded.yaml"  # of the section ``soft``, unless it names another config
NO_AUGMENTATION = "classify/no_augmentation.yaml"  # laid over the section of a protocol without data augmentation


class Plan(SharedStages):
    """Builds the stages of an experiment from the rows of its table."""

    def everything(self) -> list[Stage]:
        """All stages of the experiment, each after what it needs, the report last.

        Raises:
            InputError: If no method has a row for one of the IPCs.
        """
        experiment = self.experiment
        rows, draws = experiment.rows, range(experiment.draws)
        if experiment.methods and not rows:
            found = f"{listed(experiment.methods)}, which options give another ipc than {listed(experiment.ipcs)}"
            raise InputError("methods", found, "at least one row", "Add their ipc to ipc, or name other methods")
        if experiment.networks:
            self.validation()  # first: a subset that cannot be selected stops the run before hours of generation
        for draw, (row, ipc) in product(draws, rows):
            self.distilled(row, ipc, draw)
        for pool in [name for name in self.stages if name.startswith(f"{layout.POOLS}/")]:
            if layout.is_first_draw(pool):
                self.judged(pool)
        kinds = [*product(experiment.networks, dict.fromkeys(experiment.protocols))]
        for draw, (row, ipc), (network, protocol) in product(draws, rows, kinds):
            for repeat in range(experiment.repeats):
                self.evaluation(row, ipc, network, draw, repeat, protocol)
        self._compared_by_scores()
        self.add(layout.REPORT, "report", {"runs": [InRun()], **self._scores_of_report()})
        return list(self.stages.values())

    # ---- distilled sets --------------------------------------------------------------------------------------

    def distilled(self, row: str, ipc: int, draw: int = 0) -> InRun | None:
        """The distilled set of a row of the table; none for the full data set.

        Draws of a method without chance in its set share the set.

        Raises:
            InputError: If there is no such method.
        """
        key, experiment = variant_of(self.experiment, row)
        method = find_method(key)
        if method is None or method.quoted or (key.startswith(SET) and key.removeprefix(SET) not in experiment.sets):
            known = [known.key for known in METHODS.values() if not known.quoted]
            known += [f"{SET}{name}" for name in experiment.sets]
            raise InputError.choice("methods", key, known, "Correct the list of methods")
        if method.rule is None:
            return None
        name = SetName(row, ipc, draw if method.by_chance else 0)
        if layout.distilled(name) in self.stages:
            return InRun(layout.distilled(name))
        original = self.original_scores()
        config: Settings = {
            **expand(experiment.select),
            "method": method.rule,
            "ipc": ipc,
            "seed": draw_seed(experiment.seed, name.draw),
            "output": InRun(layout.distilled(name)),
        }
        if method.rule in FEATURE_RULES:
            config = self.with_features(config)
        if original is not None:
            config |= {"original": self.images("train"), "original_scores": original}
        config |= self._candidates(method, name, experiment)
        return self.add(layout.distilled(name), "select", config)

    def _candidates(self, method: Method, name: SetName, experiment: Experiment) -> Settings:
        """The images that a method's set is taken from, and their scores."""
        if method.images == ORIGINALS:
            return {"pool": self.images("train"), "pool_scores": self.original_scores()}
        if method.images == GIVEN:
            if experiment.pool is None:
                raise InputError.unset("pool", "a folder of images", "FOLDER")
            pool = given(experiment.pool)
            return {"pool": pool, "pool_scores": self.scores(layout.GIVEN_POOL, pool)}
        folder, drawn = InRun(), False
        self._check_own_settings(method, experiment)
        for stage in method.made_by:
            drawn = drawn or stage.drawn  # what follows such a stage differs between the draws, too
            folder = self._make(stage, method, name if drawn else name._replace(draw=0), experiment, folder)
        scores = self.scores(layout.scored_as(folder.path), folder)
        candidates: Settings = {"pool": folder, "pool_scores": scores}
        if method.made_by[-1].command in ("fit", "import"):  # these are a set, and not a pool of a size
            return candidates
        assert name.ipc is not None
        return {**candidates, "pool_images": experiment.pool_multiple * name.ipc}

    def _check_own_settings(self, method: Method, experiment: Experiment) -> None:
        """Check that each of the own settings of a method belongs to one of the stages of the method that has them."""
        own = experiment.settings_of(method.maker)
        maker = find_method(method.maker)
        stages = maker.made_by if maker else ()
        taken = [name for stage in stages for name in (own if stage.takes is None else stage.takes)]
        if unknown := [name for name in own if name not in taken]:
            raise InputError.choice(method.maker, unknown[0], taken, "Correct the setting")

    def _make(self, stage: MadeBy, method: Method, name: SetName, experiment: Experiment, previous: InRun) -> InRun:
        """Add a stage that a method declares, or find one with the same settings.

        Returns:
            What the stage makes.
        """
        shared = "{set}" not in stage.name
        folder = InRun(layout.of_draw(stage.name, name.draw) if shared else stage.name.format(set=name))
        config = self._settings(stage, method, name, experiment, previous, folder)
        if same := self._with_settings(stage.command, config, folder):
            return _inside(same, stage.file)
        if folder.path in self.stages:  # of rows with other settings
            folder = InRun(layout.of_draw(f"{stage.name}-{name.row}", name.draw))
            config = self._settings(stage, method, name, experiment, previous, folder)
        return _inside(self.add(folder.path, stage.command, config), stage.file)

    def _settings(
        self, stage: MadeBy, method: Method, name: SetName, experiment: Experiment, previous: InRun, folder: InRun
    ) -> Settings:
        """Settings of a stage that a method declares, which writes into a folder."""
        shared = "{set}" not in stage.name
        wired: Settings = {}
        for key, value in stage.settings.items():
            filled = self._filled(value.name, shared, name, previous) if isinstance(value, Use) else value
            if filled is not None:
                wired = merge(wired, nested(key, filled))
        taken = experiment.settings_of(method.maker)
        taken = {key: value for key, value in taken.items() if stage.takes is None or key in stage.takes}
        inner = {key: value for key, value in taken.items() if (stage.callback or stage.at) and key not in SECTIONS}
        own = {key: value for key, value in taken.items() if key not in inner}
        section: Settings = merge({"config": stage.config} if stage.config else {}, own)
        if stage.section:
            section = merge(section, getattr(experiment, stage.section))
        if stage.command not in ("fit", "predict"):
            return {**merge(merge(expand(section), wired), own), "output": _inside(folder, stage.file)}
        section = with_classes(stage.task, stage.data, section)
        if stage.callback:
            guided = {"class_path": stage.callback, "init_args": {**inner, **wired.pop("callback", {})}}
            listed = [guided, *(section.get("trainer", {}).get("callbacks") or [])]
            section = {**section, "trainer": {**section.get("trainer", {}), "callbacks": listed}}
        elif inner:
            wired = merge(wired, nested(stage.at, inner))
        wired = merge(wired, {key: value for key, value in own.items() if key != "config"})
        return self.lightning(folder.path, section, wired, writer=stage.writer)

    def _with_settings(self, command: str, config: Settings, folder: InRun) -> InRun | None:
        """Folder of a stage that differs from a new one only in its folder, if there is one."""

        def without(settings: Settings, own: str) -> Settings:
            named: Settings = replaced(
                settings, lambda part: InRun(part.path.removeprefix(own)) if within(part.path, own) else part
            )
            return {key: value for key, value in named.items() if key != "threads"}

        for stage in self.stages.values():
            if stage.command == command and without(stage.config, stage.name) == without(config, folder.path):
                return InRun(stage.name)
        return None

    def _filled(self, use: str, shared: bool, name: SetName, previous: InRun) -> Any:  # noqa: ANN401
        """A value that a declared stage uses; a stage that all rows share serves the largest of them."""
        experiment = self.experiment
        if use in ("dit", "minimax", "guided"):
            return self.dit(use)
        if use == "pool_images":
            rows = [*experiment.methods, *experiment.variants] if shared else [name.row]  # so that no row changes pools
            multiple = max(variant_of(experiment, row)[1].pool_multiple for row in rows)
            return multiple * (experiment.ipcs[-1] if shared or name.ipc is None else name.ipc)
        values: dict[str, Callable[[], Any]] = {
            "train": lambda: self.images("train"),
            "val": lambda: self.images("val"),
            "latents": self.latents,
            "original_scores": self.original_scores,
            "codec": lambda: given(experiment.codec),
            "decoder": lambda: given(experiment.decoder or experiment.codec),
            "previous": lambda: previous,
            "previous_scores": lambda: self.scores(layout.scored_as(previous.path), previous),
            "teacher": lambda: self.teacher()["teacher"]["name"],
            "teacher_weights": lambda: self.teacher()["teacher"].get("weights"),
            "pool_multiple": lambda: variant_of(experiment, name.row)[1].pool_multiple,
            "image_size": lambda: experiment.image_size,
            "labels": lambda: experiment.classes,
            "ipc": lambda: experiment.ipcs[-1] if shared else name.ipc,
            "seed": lambda: draw_seed(experiment.seed, name.draw),
        }
        return values[use]()

    # ---- downstream ------------------------------------------------------------------------------------------

    def evaluation(self, row: str, ipc: int, network: str, draw: int, repeat: int, protocol: str) -> Place:
        """One network trained from scratch on one distilled set."""
        made = self.distilled(row, ipc, draw)
        seed = training_seed(self.experiment.seed, draw, repeat)
        trained_on = SetName(row, None) if made is None else SetName.parse(PurePosixPath(made.path).name)
        name = str(Training(trained_on, network, seed, protocol))
        task: Settings = {"network": network, "seed": seed}
        if protocol.removesuffix(layout.UNAUGMENTED) == layout.SOFT:
            section, task = classification({"config": SOFT_LABELS, **self.experiment.soft}), {**task, **self.teacher()}
        else:
            section = classification(self.experiment.evaluate)
        if protocol.endswith(layout.UNAUGMENTED):
            section = merge(section, load_config(NO_AUGMENTATION))
        if made is None:
            section = for_whole_set(section, self.experiment.ipcs[0])
        data = {"train": self.images("train") if made is None else made, "val": self.validation()}
        config = self.lightning(name, section, wiring(task, data), single=True)
        return self.add(name, "fit", config)

    def _compared_by_scores(self) -> None:
        """Add the trainings that the scores compare and that no row has."""
        experiment = self.experiment
        sets = product(range(experiment.draws), experiment.rows)
        kinds = [*product(experiment.scores, experiment.networks, experiment.protocols)]
        needed = (
            (compared.row, ipc, network, draw, repeat, compared.protocol)
            for draw, (row, ipc) in sets
            if self.distilled(row, ipc, draw) is not None
            for score, network, protocol in kinds
            for compared in compared_by(score, row, protocol).values()
            for repeat in range(experiment.repeats)
        )
        for training in dict.fromkeys(needed):
            self.evaluation(*training)

    def _scores_of_report(self) -> Settings:
        """Settings of the report about scores: where they change, the report is written again."""
        experiment = self.experiment
        weights = {"lrs_weight": experiment.lrs_weight, "ars_weight": experiment.ars_weight}
        return {"scores": [*dict.fromkeys(experiment.scores)], **weights} if experiment.scores else {}


def _inside(folder: InRun, file: str) -> InRun:
    return InRun(f"{folder.path}/{file}") if file else folder

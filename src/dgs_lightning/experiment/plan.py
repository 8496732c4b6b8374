"""From an experiment to its stages: which commands run, with which settings, in which order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgs_lightning.configs import merge, remove_callbacks
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.sections import expand, given_settings, wiring, with_callback_settings, with_classes
from dgs_lightning.experiment.settings import Experiment, nested, variant_of
from dgs_lightning.experiment.stage import Given, InRun, Settings, Stage, given, replaced
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import SetName, Training
from dgs_lightning.runs.methods import GIVEN, METHODS, ORIGINALS, MadeBy, Method, Use

Place = InRun | Given | str  # of images or of a model


@dataclass
class Plan:
    """Builds the stages of an experiment. Asking for a result adds the stage that makes it, and what it needs, once.

    Args:
        experiment: The experiment.
        stages: The stages so far by name, each after what it needs.
    """

    experiment: Experiment
    stages: dict[str, Stage] = field(default_factory=dict)

    def everything(self) -> list[Stage]:
        """All stages of the experiment, each after what it needs, the report last."""
        experiment = self.experiment
        rows = [(row, ipc) for ipc in experiment.ipcs for row in experiment.methods]
        for row, ipc in rows:
            self.distilled(row, ipc)
        for pool in [name for name in self.stages if name.startswith(f"{layout.POOLS}/")]:
            self.judged(pool)
        for row, ipc in rows:
            for network in experiment.networks:
                for repeat in range(experiment.repeats):
                    self.evaluation(row, ipc, network, repeat)
        self._add(layout.REPORT, "report", {"runs": [InRun()]})
        return list(self.stages.values())

    def _add(self, name: str, command: str, config: Settings) -> InRun:
        """Add a stage. It needs every stage whose folder its settings name, and has the threads of the experiment.

        Returns:
            The folder of the stage.
        """
        if name not in self.stages:
            paths: list[str] = []
            replaced(config, lambda part: paths.append(part.path) if isinstance(part, InRun) else None)
            needs = tuple(
                stage
                for stage in self.stages.values()
                if any(path == "" or _within(path, stage.name) for path in paths)
            )
            threads = {"threads": self.experiment.threads}  # results depend on them
            self.stages[name] = Stage(name, command, {**config, **threads}, needs)
        return InRun(name)

    def _lightning(
        self, name: str, section: Settings, wired: Settings, *, writer: str | None = None, single: bool = False
    ) -> Settings:
        """Settings of a LightningCLI command: those of an expanded section, changed by those of this run.

        A ``single`` stage runs on one device, whatever the experiment's trainer says; ``jobs`` spreads such stages.
        """
        everywhere = {"devices": 1, **self.experiment.trainer, **({"devices": 1, "strategy": "auto"} if single else {})}
        run: Settings = {"seed_everything": self.experiment.seed, "trainer": {"default_root_dir": InRun(name)}}
        settings = remove_callbacks(merge(merge(merge(section, {"trainer": everywhere}), wired), run))
        if writer:
            callback = {"class_path": writer, "init_args": {"output": InRun(name)}}
            settings["trainer"]["callbacks"] = [*(settings["trainer"].get("callbacks") or []), callback]
            settings["trainer"]["logger"] = settings["trainer"].get("logger", writer == "ImageWriter")  # it shows some
        return settings

    # ---- images and models that several stages share ---------------------------------------------------------

    def images(self, split: str) -> Place:
        """The training or validation images, prepared where the experiment says so.

        Raises:
            InputError: If the experiment names none.
        """
        experiment = self.experiment
        if experiment.data is None:
            if experiment.original is None or split == "val":
                raise InputError.unset("data", "a data set", "FOLDER (or data=digits)")
            return given(experiment.original)
        if experiment.prepare is None:
            return given(Path(experiment.data, split).as_posix())
        config = {
            **expand(experiment.prepare),
            "data": given(experiment.data),
            "output": InRun(layout.DATA),
            "seed": experiment.seed,
            **given_settings(image_size=experiment.image_size, classes=experiment.classes),
        }
        self._add(layout.DATA, "prepare", config)
        return InRun(f"{layout.DATA}/{split}")

    def latents(self) -> Place:
        """Latent cache of the training images."""
        section = with_classes("EncodingTask", "ImageDataModule", self.experiment.latents)
        data = {"predict": self.images("train"), **given_settings(image_size=self.experiment.image_size)}
        wired = wiring({"codec": given(self.experiment.codec)}, data)
        config = self._lightning(layout.LATENTS, section, wired, writer="LatentWriter")
        return self._add(layout.LATENTS, "predict", config)

    def dit(self, name: str) -> Place:
        """Weights of the DiT ``minimax`` (fine-tuned) or ``dit`` (before fine-tuning); ``guided``: the guided one."""
        if name == "guided":
            return self.dit(self.experiment.guided)
        if name == "minimax":
            return self._train_dit(layout.FINETUNE, "MinimaxTask", self.experiment.finetune, {"dit": self.dit("dit")})
        if self.experiment.dit is not None:
            return given(self.experiment.dit)
        return self._train_dit(layout.PRETRAIN, "DiffusionTask", self.experiment.pretrain, {})

    def _train_dit(self, name: str, kind: str, section: Settings, task: Settings) -> Place:
        section, seed = with_classes(kind, "LatentDataModule", section, "WeightsWriter"), {"seed": self.experiment.seed}
        section = with_callback_settings(section, "SampleGrid", codec=given(self.experiment.codec))
        data = {"cache": self.latents(), **seed, **given_settings(labels=self.experiment.classes)}
        self._add(name, "fit", self._lightning(name, section, wiring({**task, **seed}, data)))
        return InRun(layout.weights(name))

    def _fit_classifier(self, name: str, section: Settings, data: Settings) -> Place:
        section = _classification(section)
        data = {"train": self.images("train"), "val": self.images("val"), **data}
        writer = {"class_path": "ResultWriter", "init_args": {"save_weights": True}}
        wired = {**wiring({"seed": self.experiment.seed}, data), "trainer": {"callbacks": [writer]}}
        self._add(name, "fit", self._lightning(name, section, wired, single=True))
        return InRun(layout.weights(name))

    def estimator(self) -> list[Place]:
        """Weights of the difficulty estimator's folds; none where an estimator is given by name."""
        if self.experiment.estimator is not None:
            return []
        folds = self.experiment.folds
        return [
            self._fit_classifier(
                layout.fold(k), self.experiment.cross_fit, {"cross_fitting": {"folds": folds, "fold": k}}
            )
            for k in range(folds)
        ]

    # ---- scores ----------------------------------------------------------------------------------------------

    def scores(self, name: str, images: Place) -> Place:
        """Difficulties of an image set, in a folder of their own."""
        named, weights, folds = self.experiment.estimator, self.experiment.estimator_weights, self.estimator()
        task: Settings = {"estimator": given(named) if named is not None else folds}
        if folds and name == layout.ORIGINAL:
            task["cross_fit"] = self.experiment.folds
        if weights is not None:
            task["weights"] = given(weights)
        return self._score(name, task, images)

    def _score(self, name: str, task: Settings, images: Place) -> Place:
        section = with_classes("ScoringTask", "ImageDataModule", self.experiment.score)
        stage = layout.scores(name)
        config = self._lightning(stage, section, wiring(task, {"predict": images}), writer="ScoreWriter")
        return self._add(stage, "predict", config)

    def original_scores(self) -> Place | None:
        """Difficulties of the original images; none where the experiment has no originals."""
        if self.experiment.data is None and self.experiment.original is None:
            return None
        return self.scores(layout.ORIGINAL, self.images("train"))

    def judged(self, pool: str) -> None:
        """Add the stage in which a strong classifier, trained on the originals, says how legible a pool is."""
        if self.experiment.judge is not None:
            task = {"estimator": self._fit_classifier(layout.JUDGE, self.experiment.judge, {})}
            self._score(layout.judged(layout.scored_as(pool)), task, InRun(pool))

    # ---- distilled sets --------------------------------------------------------------------------------------

    def distilled(self, row: str, ipc: int) -> Place | None:
        """The distilled set of a row of the table; none for the full data set.

        Raises:
            InputError: If there is no such method.
        """
        key, experiment = variant_of(self.experiment, row)
        name, method = SetName(row, ipc), METHODS.get(key)
        if method is None or method.quoted:
            known = [known.key for known in METHODS.values() if not known.quoted]
            raise InputError.choice("methods", key, known, "Correct the list of methods")
        if method.rule is None:
            return None
        original = self.original_scores()
        config: Settings = {
            **expand(experiment.select),
            "method": method.rule,
            "ipc": ipc,
            "seed": experiment.seed,
            "output": InRun(layout.distilled(name)),
        }
        if config.get("features") == experiment.estimator and experiment.estimator_weights is not None:
            config.setdefault("features_weights", given(experiment.estimator_weights))
        if original is not None:
            config |= {"original": self.images("train"), "original_scores": original}
        config |= self._candidates(method, name, experiment)
        return self._add(layout.distilled(name), "select", config)

    def _candidates(self, method: Method, name: SetName, experiment: Experiment) -> Settings:
        """The images that a method's set is taken from, and their scores."""
        if method.images == ORIGINALS:
            return {"pool": self.images("train"), "pool_scores": self.original_scores()}
        if method.images == GIVEN:
            if experiment.pool is None:
                raise InputError.unset("pool", "a folder of images", "FOLDER")
            pool = given(experiment.pool)
            return {"pool": pool, "pool_scores": self.scores(layout.GIVEN_POOL, pool)}
        folder = InRun()
        self._check_own_settings(method, experiment)
        for stage in method.made_by:
            folder = self._make(stage, method, name, experiment, folder)
        scores = self.scores(layout.scored_as(folder.path), folder)
        assert name.ipc is not None
        return {"pool": folder, "pool_scores": scores, "pool_images": experiment.pool_multiple * name.ipc}

    def _check_own_settings(self, method: Method, experiment: Experiment) -> None:
        """Check that each of a method's own settings belongs to one of its stages."""
        taken = [name for stage in method.made_by for name in stage.takes or experiment.settings_of(method.key)]
        if unknown := [name for name in experiment.settings_of(method.key) if name not in taken]:
            raise InputError.choice(method.key, unknown[0], taken, "Correct the setting")

    def _make(self, stage: MadeBy, method: Method, name: SetName, experiment: Experiment, previous: InRun) -> InRun:
        """Add a stage that a method declares, or find one with the same settings.

        Returns:
            What the stage makes.
        """
        folder = InRun(stage.name.format(set=name))
        shared = folder.path == stage.name
        wired: Settings = {}
        for key, value in stage.settings.items():
            filled = self._filled(value.name, shared, name, previous) if isinstance(value, Use) else value
            if filled is not None:
                wired = merge(wired, nested(key, filled))
        taken = experiment.settings_of(method.key)
        own = {key: value for key, value in taken.items() if stage.takes is None or key in stage.takes}
        section: Settings = merge({"config": stage.config} if stage.config else {}, {} if stage.callback else own)
        if stage.section:
            section = merge(section, getattr(self.experiment, stage.section))
        if stage.command in ("fit", "predict"):
            section = with_classes(stage.task, stage.data, section)
            if stage.callback:
                guided = {"class_path": stage.callback, "init_args": own}
                listed = [guided, *(section.get("trainer", {}).get("callbacks") or [])]
                section = {**section, "trainer": {**section.get("trainer", {}), "callbacks": listed}}
            config = self._lightning(folder.path, section, wired, writer=stage.writer)
        else:
            config = {**merge(expand(section), wired), "output": _inside(folder, stage.file)}
        same = self._with_settings(stage.command, config, folder)
        return _inside(same or self._add(folder.path, stage.command, config), stage.file)

    def _with_settings(self, command: str, config: Settings, folder: InRun) -> InRun | None:
        """Folder of a stage that differs from a new one only in its folder, if there is one."""

        def without(settings: Settings, own: str) -> Settings:
            named: Settings = replaced(
                settings, lambda part: InRun(part.path.removeprefix(own)) if _within(part.path, own) else part
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
            rows = experiment.methods if shared else [name.row]
            multiple = max(variant_of(experiment, row)[1].pool_multiple for row in rows)
            return multiple * (experiment.ipcs[-1] if shared or name.ipc is None else name.ipc)
        values: dict[str, Callable[[], Any]] = {
            "train": lambda: self.images("train"),
            "latents": self.latents,
            "original_scores": self.original_scores,
            "codec": lambda: given(experiment.codec),
            "decoder": lambda: given(experiment.decoder or experiment.codec),
            "previous": lambda: previous,
            "labels": lambda: experiment.classes,
            "ipc": lambda: experiment.ipcs[-1] if shared else name.ipc,
            "seed": lambda: experiment.seed,
        }
        return values[use]()

    # ---- downstream ------------------------------------------------------------------------------------------

    def evaluation(self, row: str, ipc: int, network: str, repeat: int) -> Place:
        """One network trained from scratch on one distilled set."""
        made = self.distilled(row, ipc)
        seed = self.experiment.seed + repeat
        name = str(Training(SetName(row, None if made is None else ipc), network, seed))
        section = _classification(self.experiment.evaluate)
        data = {
            "train": self.images("train") if made is None else made,
            "val": self._validation(variant_of(self.experiment, row)[1].validation),
        }
        config = self._lightning(name, section, wiring({"network": network, "seed": seed}, data), single=True)
        return self._add(name, "fit", config)

    def _validation(self, kind: str) -> Place:
        """The validation images, or a part of them that is chosen by difficulty."""
        images = self.images("val")
        if kind == "all":
            return images
        name = f"{layout.VALIDATION}/{kind}"
        config = expand({"config": f"select/validation_{kind}.yaml"})
        wiring = {"pool": images, "pool_scores": self.scores("val", images), "output": InRun(name)}
        return self._add(name, "select", {**config, **wiring, "seed": self.experiment.seed})


def _classification(section: Settings) -> Settings:
    """A section that trains a classifier: for the published length, unless it says otherwise."""
    published: Settings = {"trainer": {"max_epochs": -1}}
    callbacks = ("PublishedLength", "ResultWriter")
    return merge(published, with_classes("ClassificationTask", "ImageDataModule", section, *callbacks))


def _within(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def _inside(folder: InRun, file: str) -> InRun:
    return InRun(f"{folder.path}/{file}") if file else folder

"""From an experiment to its stages: which commands run, with which settings, in which order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgs_lightning.configs import load_config, merge, remove_callbacks
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.settings import Experiment, variant_of
from dgs_lightning.experiment.stage import Given, InRun, Settings, Stage, check_shape, given, replaced
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import SetName, Training
from dgs_lightning.runs.methods import GIVEN, METHODS, ORIGINALS, MadeBy, Method, Use

Place = InRun | Given | str  # of images or of a model


def expand(section: Settings) -> Settings:
    """Settings of a section, laid over the files that its ``config`` names.

    Raises:
        InputError: If there is no such file, or a part of the section is not a mapping or a list where it must be.
    """
    names = section.get("config") or []
    settings: Settings = {}
    for name in names if isinstance(names, list) else [names]:
        settings = merge(settings, load_config(str(name)))
    settings = merge(settings, {key: value for key, value in section.items() if key != "config"})
    check_shape(settings, "", ("model", "data", "trainer"))
    for name in ("model", "data"):
        check_shape(settings.get(name, {}), f"{name}.", ("init_args",))
    check_shape(settings.get("trainer", {}), "trainer.", ("callbacks",), list)
    return remove_callbacks(settings)


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
                if any(path in ("", stage.name) or path.startswith(f"{stage.name}/") for path in paths)
            )
            threads = {"threads": self.experiment.threads}  # results depend on them
            self.stages[name] = Stage(name, command, {**config, **threads}, needs)
        return InRun(name)

    def _lightning(
        self, name: str, section: Settings, wired: Settings, *, writer: str | None = None, single: bool = False
    ) -> Settings:
        """Settings of a LightningCLI command: those of a section, with those of this run laid over them.

        Args:
            name: The stage.
            section: The section, expanded.
            wired: ``model`` and ``data`` settings of this run.
            writer: Callback that writes predictions into the folder of the stage.
            single: Whether the stage runs on one device whatever the experiment's trainer has; ``jobs`` spreads these.
        """
        everywhere = {"devices": 1, **self.experiment.trainer, **({"devices": 1, "strategy": "auto"} if single else {})}
        run: Settings = {
            "seed_everything": self.experiment.seed,
            "trainer": {"default_root_dir": InRun(name)},
        }
        settings = remove_callbacks(merge(merge(merge(section, {"trainer": everywhere}), wired), run))
        if writer:
            callback = {"class_path": writer, "init_args": {"output": InRun(name)}}
            settings["trainer"]["callbacks"] = [*(settings["trainer"].get("callbacks") or []), callback]
            settings["trainer"]["logger"] = settings["trainer"].get("logger", False)
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
                raise InputError(
                    "data", found="nothing", expected="a data set", remedy="Set data=FOLDER (or data=digits)"
                )
            return given(experiment.original)
        if experiment.prepare is None:
            return given(Path(experiment.data, split).as_posix())
        config = {
            **expand(experiment.prepare),
            "data": given(experiment.data),
            "output": InRun(layout.DATA),
            "seed": experiment.seed,
            **_set(image_size=experiment.image_size, classes=experiment.classes),
        }
        self._add(layout.DATA, "prepare", config)
        return InRun(f"{layout.DATA}/{split}")

    def latents(self) -> Place:
        """Latent cache of the training images."""
        section = _section("EncodingTask", "ImageDataModule", self.experiment.latents)
        data = {"predict": self.images("train"), **_set(image_size=self.experiment.image_size)}
        wired = _wired({"codec": given(self.experiment.codec)}, data)
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
        section, seed = _section(kind, "LatentDataModule", section, "WeightsWriter"), {"seed": self.experiment.seed}
        data = {"cache": self.latents(), **seed, **_set(labels=self.experiment.classes)}
        self._add(name, "fit", self._lightning(name, section, _wired({**task, **seed}, data)))
        return InRun(layout.weights(name))

    def _fit_classifier(self, name: str, section: Settings, data: Settings) -> Place:
        section = _section("ClassificationTask", "ImageDataModule", section)
        task = {"save_weights": True, "seed": self.experiment.seed}
        data = {"train": self.images("train"), "val": self.images("val"), **data}
        self._add(name, "fit", self._lightning(name, section, _wired(task, data), single=True))
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
        section = _section("ScoringTask", "ImageDataModule", self.experiment.score)
        stage = layout.scores(name)
        config = self._lightning(stage, section, _wired(task, {"predict": images}), writer="ScoreWriter")
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
            self._score(layout.judged(pool.partition("/")[2]), task, InRun(pool))

    # ---- distilled sets --------------------------------------------------------------------------------------

    def distilled(self, row: str, ipc: int) -> Place | None:
        """The distilled set of a row of the table; none for the full data set.

        Raises:
            InputError: If there is no such method.
        """
        key, experiment = variant_of(self.experiment, row)
        name, method = SetName(row, ipc), METHODS.get(key)
        if method is None or method.quoted:
            known = ", ".join(known.key for known in METHODS.values() if not known.quoted)
            raise InputError(
                "methods", found=repr(key), expected=f"one of {known}", remedy="Correct the list of methods"
            )
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
                raise InputError("pool", found="nothing", expected="a folder of images", remedy="Set pool=FOLDER")
            pool = given(experiment.pool)
            return {"pool": pool, "pool_scores": self.scores("pool", pool)}
        for stage in method.made_by:
            folder = self._make(stage, method, name, experiment)
        scores = self.scores(folder.path.partition("/")[2], folder)
        assert name.ipc is not None
        return {"pool": folder, "pool_scores": scores, "pool_images": experiment.pool_multiple * name.ipc}

    def _make(self, stage: MadeBy, method: Method, name: SetName, experiment: Experiment) -> InRun:
        """Add a stage that a method declares."""
        folder = stage.name.format(set=name)
        shared = folder == stage.name
        filled = {use: self._filled(use, shared, name) for use in _uses(stage)}

        def fill(value: Any) -> Any:  # noqa: ANN401
            return filled[value.name] if isinstance(value, Use) else value

        section: Settings = {"config": stage.config} if stage.config else {}
        changes = experiment.settings_of(method.key)
        section = merge(section, getattr(self.experiment, stage.section) if stage.section else changes)
        if stage.command not in ("fit", "predict"):
            values = {key: fill(value) for key, value in stage.settings.items()}
            return self._add(folder, stage.command, {**expand(section), **values, "output": InRun(folder)})
        section = _section(stage.task, stage.data, section)
        callbacks = [
            {"class_path": kind, "init_args": {**changes, **{key: fill(value) for key, value in settings.items()}}}
            for kind, settings in stage.callbacks
        ]
        if callbacks:
            listed = [*callbacks, *(section.get("trainer", {}).get("callbacks") or [])]
            section = {**section, "trainer": {**section.get("trainer", {}), "callbacks": listed}}
        wired: Settings = {}
        for key, value in stage.settings.items():
            if fill(value) is not None:
                wired = merge(wired, nested(key, fill(value)))
        return self._add(folder, stage.command, self._lightning(folder, section, wired, writer=stage.writer))

    def _filled(self, use: str, shared: bool, name: SetName) -> Any:  # noqa: ANN401
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
            "centers": lambda: InRun(layout.CENTERS),
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
        section = _section("ClassificationTask", "ImageDataModule", self.experiment.evaluate)
        data = {
            "train": self.images("train") if made is None else made,
            "val": self._validation(variant_of(self.experiment, row)[1].validation),
        }
        config = self._lightning(name, section, _wired({"network": network, "seed": seed}, data), single=True)
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


def nested(key: str, value: Any) -> Settings:  # noqa: ANN401
    """The mapping that a dotted key and its value stand for."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _set(**settings: Any) -> Settings:  # noqa: ANN401
    """The settings that are set."""
    return {key: value for key, value in settings.items() if value is not None}


def _wired(task: Settings, data: Settings) -> Settings:
    return {"model": {"init_args": task}, "data": {"init_args": data}}


def _uses(stage: MadeBy) -> list[str]:
    """Names of the values that a declared stage uses, in the order in which it names them."""
    groups: list[Mapping[str, Any]] = [stage.settings, *(settings for _, settings in stage.callbacks)]
    return [value.name for group in groups for value in group.values() if isinstance(value, Use)]


def _section(task: str | None, data: str | None, section: Settings, *callbacks: str) -> Settings:
    """A section, expanded, with these classes where neither it nor its files name others."""
    classes: Settings = {name: {"class_path": kind} for name, kind in (("model", task), ("data", data)) if kind}
    if callbacks:
        classes["trainer"] = {"callbacks": [{"class_path": kind} for kind in callbacks]}
    return merge(classes, expand(section))

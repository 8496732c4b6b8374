"""Stages that several rows of an experiment share: prepared images, latents, models and scores."""

from dataclasses import dataclass, field
from pathlib import Path

from dgs_lightning.configs import expand, merge, remove_callbacks
from dgs_lightning.data.named import is_named, known_set
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.fast import faster
from dgs_lightning.experiment.sections import (
    classification,
    given_settings,
    wiring,
    with_callback_settings,
    with_classes,
    with_links,
)
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Apart, Given, InRun, Settings, Stage, given, replaced, within
from dgs_lightning.runs import layout

Place = InRun | Given | str  # of images or of a model


@dataclass
class SharedStages:
    """Adds stages of an experiment. Asking for a result adds the stage that makes it, and what it needs, once.

    Args:
        experiment: The experiment.
        stages: The stages so far by name, each after what it needs.
    """

    experiment: Experiment
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(self, name: str, command: str, config: Settings) -> InRun:
        """Add a stage. It needs every stage whose folder its settings name, and has the threads of the experiment.

        Returns:
            The folder of the stage.
        """
        if name not in self.stages:
            if self.experiment.links == "follow":
                config = with_links(command, config)
            paths: list[str] = []
            replaced(config, lambda part: paths.append(part.path) if isinstance(part, InRun) else None)
            needs = tuple(
                stage for stage in self.stages.values() if any(path == "" or within(path, stage.name) for path in paths)
            )
            threads = {"threads": self.experiment.threads}  # results depend on them
            self.stages[name] = Stage(name, command, {**config, **threads}, needs)
        return InRun(name)

    def lightning(
        self, name: str, section: Settings, wired: Settings, *, writer: str | None = None, single: bool = False
    ) -> Settings:
        """Settings of a LightningCLI command: those of an expanded section, changed by those of this run.

        A ``single`` stage runs on one device, whatever the experiment's trainer says; ``jobs`` spreads such stages.
        """
        everywhere = {"devices": 1, **self.experiment.trainer, **({"devices": 1, "strategy": "auto"} if single else {})}
        run: Settings = {"seed_everything": self.experiment.seed, "trainer": {"default_root_dir": InRun(name)}}
        if self.experiment.fast:
            section = merge(section, faster(merge(section, wired)))
        settings = remove_callbacks(merge(merge(merge(section, {"trainer": everywhere}), wired), run))
        if writer:
            callback = {"class_path": writer, "init_args": {"output": InRun(name)}}
            settings["trainer"]["callbacks"] = [*(settings["trainer"].get("callbacks") or []), callback]
            settings["trainer"]["logger"] = settings["trainer"].get("logger", writer == "ImageWriter")  # it shows some
        return settings

    def images(self, split: str) -> Place:
        """The training or validation images, prepared where the experiment says so.

        Raises:
            InputError: If the experiment names none.
        """
        experiment = self.experiment
        if split == "val" and experiment.val is not None:
            if not Path(experiment.val).is_dir():
                raise InputError.missing(f"val {experiment.val}", "a tree of class folders with validation images")
            return given(experiment.val)
        if experiment.data is None:
            if experiment.original is None or split == "val":
                raise InputError.unset("data", "a data set", "FOLDER (or data=fashion_mnist, or another name)")
            return given(experiment.original)
        named = is_named(experiment.data)
        if experiment.prepare is None and named:
            found, expected = f"{experiment.data!r}, a data set by name", "a folder, where prepare is null"
            remedy = f"Add --set prepare={{}}, or write data=./{experiment.data} for a folder"
            raise InputError.setting("data", found, expected, remedy)
        if named and known_set(experiment.data) is None:
            from dgs_lightning.data.fetching import kind_of  # slow to import

            kind_of(experiment.data)
        if experiment.prepare is None:
            return given(Path(experiment.data, split).as_posix())
        config = {
            **expand(experiment.prepare),
            "data": experiment.data if named else given(experiment.data),
            "output": InRun(layout.DATA),
            "seed": experiment.seed,
            **given_settings(image_size=experiment.image_size, classes=experiment.classes),
            **({} if experiment.root is None else {"root": Apart(experiment.root)}),
        }
        self.add(layout.DATA, "prepare", config)
        return InRun(f"{layout.DATA}/{split}")

    def latents(self) -> Place:
        """Latent cache of the training images."""
        section = with_classes("EncodingTask", "ImageDataModule", self.experiment.latents)
        data = {"predict": self.images("train"), **given_settings(image_size=self.experiment.image_size)}
        wired = wiring({"codec": given(self.experiment.codec)}, data)
        config = self.lightning(layout.LATENTS, section, wired, writer="LatentWriter")
        return self.add(layout.LATENTS, "predict", config)

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
        self.add(name, "fit", self.lightning(name, section, wiring({**task, **seed}, data)))
        return InRun(layout.weights(name))

    def _fit_classifier(self, name: str, section: Settings, data: Settings) -> Place:
        if name not in self.stages:  # each set of images asks for the folds of the estimator
            section = classification(section)
            data = {"train": self.images("train"), "val": self.images("val"), **data}
            writer = {"class_path": "ResultWriter", "init_args": {"save_weights": True}}
            wired = {**wiring({"seed": self.experiment.seed}, data), "trainer": {"callbacks": [writer]}}
            self.add(name, "fit", self.lightning(name, section, wired, single=True))
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

    def scores(self, name: str, images: Place) -> Place:
        """Difficulties of an image set, in a folder of their own."""
        named, weights, folds = self.experiment.estimator, self.experiment.estimator_weights, self.estimator()
        task: Settings = {"estimator": given(named) if named is not None else folds}
        if folds and name == layout.ORIGINAL:
            task["cross_fit"] = self.experiment.folds
        if folds and layout.is_imported(name):  # a set that others selected may have originals
            task |= {"cross_fit": self.experiment.folds, "originals": self.images("train")}
        if weights is not None:
            task["weights"] = given(weights)
        if name == layout.GIVEN_POOL:  # as any pool, it may hold images that are hard to recognise
            task["check_accuracy"] = False
        return self._score(name, task, images)

    def with_features(self, select: Settings) -> Settings:
        """Settings of ``dgs select`` for a rule that compares features: by default those of the estimator.

        Networks of different folds have no features in common, so fold 0's network of a cross-fitted estimator serves
        all images.
        """
        estimator, weights = self.experiment.estimator, self.experiment.estimator_weights
        name = select.get("features") or estimator
        own = {"features_weights": given(weights)} if weights is not None and name == estimator else {}
        return {**own, **select, "features": self.estimator()[0] if name is None else given(name)}

    def _score(self, name: str, task: Settings, images: Place) -> Place:
        section = with_classes("ScoringTask", "ImageDataModule", self.experiment.score)
        stage = layout.scores(name)
        config = self.lightning(stage, section, wiring(task, {"predict": images}), writer="ScoreWriter")
        return self.add(stage, "predict", config)

    def original_scores(self) -> Place | None:
        """Difficulties of the original images; none where the experiment has no originals."""
        if self.experiment.data is None and self.experiment.original is None:
            return None
        return self.scores(layout.ORIGINAL, self.images("train"))

    def validation(self) -> Place | list[Place]:
        """The validation images; where the experiment names subsets of them, a list with a folder for each as well."""
        images, subsets = self.images("val"), []
        for name in dict.fromkeys(self.experiment.validation):
            folder = f"{layout.VALIDATION}/{name}"
            config = {
                **expand({"config": f"select/validation_{name}.yaml"}),
                "pool": images,
                "pool_scores": self.scores("val", images),
                "original": self.images("train"),
                "original_scores": self.original_scores(),
                "seed": self.experiment.seed,
                "output": InRun(folder),
            }
            subsets.append(self.add(folder, "select", config))
        return [images, *subsets] if subsets else images

    def judged(self, pool: str) -> None:
        """Add the stage in which a strong classifier, trained on the originals, says how legible a pool is."""
        if self.experiment.judge is not None:
            task = {"estimator": self._judge(self.experiment.judge)}
            self._score(layout.judged(layout.scored_as(pool)), task, InRun(pool))

    def _judge(self, section: Settings) -> Place:
        return self._fit_classifier(layout.JUDGE, section, {})

    def teacher(self) -> Settings:
        """Settings of a task with a teacher: the one that the experiment names, else the judge.

        Raises:
            InputError: If there is neither.
        """
        named, weights, judge = self.experiment.teacher, self.experiment.teacher_weights, self.experiment.judge
        if named is not None:
            return {"teacher": {"name": given(named)} | ({} if weights is None else {"weights": given(weights)})}
        if judge is None:
            expected = "a classifier that gives soft labels, or a section 'judge'"
            raise InputError.unset("teacher", expected, "torchvision:resnet18")
        return {"teacher": {"name": self._judge(judge)}}

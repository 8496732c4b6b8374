"""From an experiment to its stages: which commands, with which settings, in which order."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dgs_lightning.configs import find_config, load_yaml, merge
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.settings import Experiment, Settings, variant_of

# Method slug -> the rule of `dgs select` that draws it from the originals.
FROM_ORIGINALS = {
    "random": "random",
    "kcenter": "kcenter",
    "herding": "herding",
    "kmeans": "kmeans",
    "ccs": "ccs",
    "dgs_ori": "dgs",
}
GUIDANCE = {"mgd3": "ModeGuidance", "dag": "DifficultyAwareGuidance"}
POOLS = ("dit", "minimax", "pool")
NUMBERS = ("seed", "seed_everything", "fold", "ipc", "pool_images", "images_per_class")  # which a plan counts up


@dataclass(frozen=True)
class Stage:
    """One ``dgs`` command of an experiment.

    Args:
        name: Path of the stage's folder below the run's; a stage writes nowhere else.
        command: Subcommand of ``dgs``.
        config: Its YAML config.
        needs: Stages whose results it reads.
        inputs: Files and folders outside the run that it reads.
    """

    name: str
    command: str
    config: Settings
    needs: tuple["Stage", ...] = ()
    inputs: tuple[str, ...] = ()


def stage_keys(stages: Sequence[Stage], output: Path) -> dict[str, str]:
    """Hash of each stage's settings, of its inputs and of the stages it needs, wherever the run's folder is.

    Args:
        stages: Stages, each after what it needs.
        output: Folder of the run.
    """
    fingerprints = {path: fingerprint(Path(path)) for path in {path for stage in stages for path in stage.inputs}}
    keys: dict[str, str] = {}
    for stage in stages:
        identity = {
            "command": stage.command,
            "config": json.dumps(stage.config, sort_keys=True).replace(output.as_posix(), "OUTPUT"),
            "needs": [keys[needed.name] for needed in stage.needs],
            "inputs": [fingerprints[path] for path in stage.inputs],
        }
        keys[stage.name] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return keys


def one_of_each_kind(stages: Sequence[Stage], output: Path) -> list[Stage]:
    """Of stages that differ in the run's own paths and ``NUMBERS`` alone, the first."""

    def kind(stage: Stage) -> tuple[str, str]:
        settings = json.dumps(stage.config, sort_keys=True)
        without_paths = re.sub(rf'{re.escape(output.as_posix())}[^"]*', "PATH", settings)
        return stage.command, re.sub(rf'("(?:{"|".join(NUMBERS)})": )\d+', r"\g<1>0", without_paths)

    return list({kind(stage): stage for stage in reversed(stages)}.values())


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and modification times of a file or of all files below a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    stats = [(p, p.stat()) for p in files]
    return [(p.relative_to(path.parent).as_posix(), stat.st_size, stat.st_mtime_ns) for p, stat in stats]


def expand(section: Settings) -> Settings:
    """Settings of a section with the files that its ``config`` names merged below them."""
    names = section.get("config") or []
    settings: Settings = {}
    for name in names if isinstance(names, list) else [names]:
        settings = merge(settings, load_yaml(find_config(str(name))))
    settings = merge(settings, {key: value for key, value in section.items() if key != "config"})
    _check_shape(settings, "", ("model", "data", "trainer"))
    for name in ("model", "data"):
        _check_shape(settings.get(name, {}), f"{name}.", ("init_args",))
    _check_shape(settings.get("trainer", {}), "trainer.", ("callbacks",), list)
    return settings


def _check_shape(settings: Settings, above: str, names: Sequence[str], shape: type = dict) -> None:
    """Refuse what cannot be laid over with this run's own."""
    for name in names:
        value = settings.get(name)
        if name in settings and not isinstance(value, shape) and not (value is None and shape is list):
            raise InputError(
                f"{above}{name}",
                found=repr(value),
                expected="a mapping of settings" if shape is dict else "a list of classes",
                remedy="Correct the section",
            )


@dataclass
class Plan:
    """Builds the stages of an experiment; asking for a stage adds it, and what it needs, once.

    Args:
        experiment: The experiment.
        stages: The stages so far, each after what it needs.
    """

    experiment: Experiment
    stages: dict[str, Stage] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Folder of the run."""
        return Path(self.experiment.output or "runs")

    def path(self, *parts: str) -> str:
        """A path below the run's folder, as settings name it."""
        return self.output.joinpath(*parts).as_posix()

    def _add(
        self,
        name: str,
        command: str,
        config: Settings,
        needs: Sequence[Stage | None] = (),
        inputs: Sequence[str | None] = (),
    ) -> Stage:
        """Add a stage, or find it where it was added before."""
        if name not in self.stages:
            found = tuple(stage for stage in needs if stage is not None)
            paths = tuple(path for path in inputs if path is not None)
            self.stages[name] = Stage(name, command, config, found, paths)
        return self.stages[name]

    def _lightning(
        self,
        section: Settings,
        task: Settings,
        data: Settings,
        name: str,
        *,
        writer: str | None = None,
        single: bool = False,
    ) -> Settings:
        """Config of a LightningCLI command: the settings of a section, wired to this run's folders.

        A ``single`` stage runs on one device whatever the experiment's trainer has: ``jobs`` spreads such stages.
        """
        everywhere = {"devices": 1, **self.experiment.trainer, **({"devices": 1, "strategy": "auto"} if single else {})}
        wired: Settings = {
            "seed_everything": self.experiment.seed,
            "model": {"init_args": task},
            "data": {"init_args": data},
            "trainer": {"default_root_dir": self.path(name)},
        }
        settings = merge(merge(section, {"trainer": merge(section.get("trainer", {}), everywhere)}), wired)
        if writer:
            callback = {"class_path": writer, "init_args": {"output": self.path(name)}}
            settings["trainer"]["callbacks"] = [*(settings["trainer"].get("callbacks") or []), callback]
            settings["trainer"]["logger"] = settings["trainer"].get("logger", False)
        return settings

    # ---- data ------------------------------------------------------------------------------------------------

    def prepare(self) -> Stage | None:
        """Images at the working size, as ``data/train`` and ``data/val``."""
        experiment = self.experiment
        if experiment.data is None or experiment.prepare is None:
            return None
        config = {
            **expand(experiment.prepare),
            "data": experiment.data,
            "output": self.path("data"),
            "seed": experiment.seed,
        }
        if experiment.image_size is not None:
            config["image_size"] = experiment.image_size
        if experiment.classes is not None:
            config["classes"] = experiment.classes
        return self._add("data", "prepare", config, inputs=[self._external(experiment.data)])

    @staticmethod
    def _external(data: str | None) -> str | None:
        """A folder that is an input of the run; the name of a bundled data set is none."""
        return data if data is not None and Path(data).exists() else None

    def _split(self, split: str) -> str:
        """Folder of the training or validation images."""
        experiment = self.experiment
        if experiment.data is None:
            if experiment.original is None or split == "val":
                raise InputError(
                    "data", found="nothing", expected="a data set", remedy="Set data=FOLDER (or data=digits)"
                )
            return experiment.original
        if experiment.prepare is not None:
            return self.path("data", split)
        return (Path(experiment.data) / split).as_posix()

    def _images(self, folder: str) -> Settings:
        """Settings of a datamodule that reads one folder for ``predict``."""
        size = self.experiment.image_size
        return {"predict": folder, **({} if size is None else {"image_size": size})}

    # ---- models ----------------------------------------------------------------------------------------------

    def latents(self) -> Stage:
        """Cache of the training images' latents."""
        section = _section("EncodingTask", "ImageDataModule", self.experiment.latents)
        config = self._lightning(
            section,
            {"codec": self.experiment.codec},
            self._images(self._split("train")),
            "latents",
            writer="LatentWriter",
        )
        inputs = [self._external(self.experiment.data), self._external(self.experiment.codec)]
        return self._add("latents", "predict", config, [self.prepare()], inputs)

    def pretrain(self) -> Stage | None:
        """The DiT before fine-tuning; none where a pretrained one is given."""
        if self.experiment.dit is not None:
            return None
        return self._train_dit("pretrain", self.experiment.pretrain, {})

    def finetune(self) -> Stage:
        """The DiT after Minimax fine-tuning."""
        return self._train_dit("finetune", self.experiment.finetune, {"dit": self._dit("dit")})

    def _train_dit(self, name: str, section: Settings, task: Settings) -> Stage:
        section = _section("MinimaxTask", "LatentDataModule", section)
        seed = {"seed": self.experiment.seed}
        data = {"cache": self.path("latents"), **seed, **self._labels()}
        config = self._lightning(section, {**task, **seed}, data, name)
        needs = [self.latents(), self.pretrain() if name == "finetune" else None]
        return self._add(name, "fit", config, needs, [self._external(self.experiment.dit)])

    def _labels(self) -> Settings:
        """The class list, where the experiment names one."""
        return {} if self.experiment.classes is None else {"labels": self.experiment.classes}

    def _dit(self, pool: str) -> str:
        """The model that makes a pool, as the settings name it."""
        if pool == "minimax":
            return self.path("finetune", "weights")
        return self.experiment.dit or self.path("pretrain", "weights")

    def _fit_classifier(self, name: str, section: Settings, data: Settings) -> Stage:
        section = _section("ClassificationTask", "ImageDataModule", section)
        data = {"train": self._split("train"), "val": self._split("val"), **data}
        config = self._lightning(section, {"seed": self.experiment.seed}, data, name, single=True)
        config = _with_results(config, save_weights=True)
        return self._add(name, "fit", config, [self.prepare()], [self._external(self.experiment.data)])

    def estimator(self) -> list[Stage]:
        """The difficulty estimator's folds; none where one is given by name."""
        if self.experiment.estimator is not None:
            return []
        folds = self.experiment.folds
        return [
            self._fit_classifier(
                f"estimator/fold{k}", self.experiment.cross_fit, {"cross_fitting": {"folds": folds, "fold": k}}
            )
            for k in range(folds)
        ]

    def judge(self) -> Stage | None:
        """A strong classifier trained on the originals, which says how legible a pool is."""
        return None if self.experiment.judge is None else self._fit_classifier("judge", self.experiment.judge, {})

    # ---- images ----------------------------------------------------------------------------------------------

    def pool(self, name: str) -> Stage | None:
        """An image pool, or the images of a guided generation; none where the user gives it."""
        if name == "pool":
            return None
        if guided := self.stages.get(f"guided/{name}"):
            return guided
        model = self.finetune() if name == "minimax" else self.pretrain()
        multiple = max(variant_of(self.experiment, row)[1].pool_multiple for row in self.experiment.methods)
        requests = {"images_per_class": multiple * self.experiment.ipcs[-1]}
        config = self._generation(f"pools/{name}", self.experiment.generate, name, requests)
        return self._add(f"pools/{name}", "predict", config, [model], self._generators())

    def _generators(self) -> list[str | None]:
        """The given models that images are made with."""
        return [self._external(self.experiment.dit), self._external(self._decoder)]

    @property
    def _decoder(self) -> str:
        return self.experiment.decoder or self.experiment.codec

    def _generation(self, name: str, section: Settings, pool: str, requests: Settings) -> Settings:
        section = _section("GenerationTask", "RequestDataModule", section)
        task = {"dit": self._dit(pool), "codec": self._decoder}
        data = {"seed": self.experiment.seed, **requests, **self._labels()}
        return self._lightning(section, task, data, name, writer="ImageWriter")

    def _pool_folder(self, name: str) -> str:
        if f"guided/{name}" in self.stages:
            return self.path("guided", name)
        if name != "pool":
            return self.path("pools", name)
        if self.experiment.pool is None:
            raise InputError("pool", found="nothing", expected="a folder of images", remedy="Set pool=FOLDER")
        return self.experiment.pool

    def scores(self, name: str, folder: str, made_by: Stage | None, external: str | None = None) -> Stage:
        """Difficulties of an image set, into a folder of their own."""
        folds = self.estimator()
        named, weights = self.experiment.estimator, self.experiment.estimator_weights
        task: Settings = {"estimator": named or [self.path(fold.name, "weights") for fold in folds]}
        if folds and name == "original":
            task["cross_fit"] = self.experiment.folds
        if weights is not None:
            task["weights"] = weights
        section = _section("ScoringTask", "ImageDataModule", self.experiment.score)
        data = {"predict": folder}
        config = self._lightning(section, task, data, f"scores/{name}", writer="ScoreWriter")
        inputs = [external, self._external(named), self._external(weights)]
        return self._add(f"scores/{name}", "predict", config, [made_by, *folds], inputs)

    def judged(self, pool: str) -> Stage | None:
        """Which label the judge gives each image of a pool."""
        judge, made_by = self.judge(), self.pool(pool)
        if judge is None:
            return None
        section = _section("ScoringTask", "ImageDataModule", self.experiment.score)
        task = {"estimator": self.path("judge", "weights")}
        data = {"predict": self._pool_folder(pool)}
        name = f"scores/judge-{pool}"
        config = self._lightning(section, task, data, name, writer="ScoreWriter")
        return self._add(name, "predict", config, [made_by, judge])

    def original_scores(self) -> Stage:
        """Difficulties of the originals."""
        external = self._external(
            self.experiment.data if self.experiment.original is None else self.experiment.original
        )
        return self.scores("original", self._split("train"), self.prepare(), external)

    # ---- distilled sets --------------------------------------------------------------------------------------

    def distilled(self, row: str, ipc: int) -> Stage | None:
        """The distilled set of a row of the table; none for the full data set."""
        method, settings = variant_of(self.experiment, row)
        base = method.removesuffix("_dgs")
        name = f"distilled/{row}-ipc{ipc}"
        if method == "full":
            return None
        if method in FROM_ORIGINALS:
            return self._selected(name, ipc, settings, FROM_ORIGINALS[method], None)
        if method in GUIDANCE:
            self._generate_guided(f"{row}-ipc{ipc}", ipc, settings, method)
            return self._selected(name, ipc, settings, "all", f"{row}-ipc{ipc}")
        if base in POOLS:
            return self._selected(name, ipc, settings, "first" if method == base else "dgs", base)
        known = [*FROM_ORIGINALS, *(p + s for p in POOLS for s in ("", "_dgs")), *GUIDANCE, "full"]
        raise InputError(
            "methods", found=repr(method), expected=f"one of {', '.join(known)}", remedy="Correct the list of methods"
        )

    def _selected(self, name: str, ipc: int, settings: Experiment, rule: str, pool: str | None) -> Stage:
        """A set that ``dgs select`` draws from the originals or from a pool."""
        has_original = self.experiment.data is not None or self.experiment.original is not None
        original_scores = self.original_scores() if has_original else None
        config: Settings = {**expand(settings.select), "method": rule, "ipc": ipc, "seed": self.experiment.seed}
        if config.get("features") == self.experiment.estimator and self.experiment.estimator_weights is not None:
            config.setdefault("features_weights", self.experiment.estimator_weights)
        if original_scores is not None:
            config |= {"original": self._split("train"), "original_scores": self.path("scores", "original")}
        if pool is None:
            made_by, scores = self.prepare(), original_scores
            config |= {"pool": self._split("train"), "pool_scores": self.path("scores", "original")}
        else:
            made_by = self.pool(pool)
            folder = self._pool_folder(pool)
            scores = self.scores(pool, folder, made_by, self._external(self.experiment.pool))
            config |= {"pool": folder, "pool_scores": self.path("scores", pool)}
            if pool != "pool":
                config["pool_images"] = settings.pool_multiple * ipc
        config["output"] = self.path(name)
        return self._add(name, "select", config, [made_by, scores, original_scores])

    def _generate_guided(self, name: str, ipc: int, settings: Experiment, method: str) -> None:
        """Images generated under guidance towards cluster centres of the originals' latents, one for each centre."""
        pool = self.experiment.guided
        model = self.finetune() if pool == "minimax" else self.pretrain()
        guidance: Settings = {"latents": self.path("latents"), "ipc": ipc, "store": self.path("centers")}
        needs = [model, self.latents()]
        if method == "dag":
            needs.append(self.original_scores())
            guidance["scores"] = self.path("scores", "original")
        callback = {"class_path": GUIDANCE[method], "init_args": {**getattr(settings, method), **guidance}}
        generate = expand(self.experiment.generate)
        callbacks = [callback, *(generate.get("trainer", {}).get("callbacks") or [])]
        section = merge(generate, {"trainer": {"callbacks": callbacks}})
        config = self._generation(f"guided/{name}", section, pool, {"images_per_class": ipc})
        self._add(f"guided/{name}", "predict", config, needs, self._generators())

    def evaluation(self, row: str, ipc: int, network: str, repeat: int) -> Stage:
        """One network trained from scratch on one distilled set."""
        made_by = self.distilled(row, ipc)
        train = self._split("train") if made_by is None else self.path(made_by.name)
        seed = self.experiment.seed + repeat
        validation = self._validation(variant_of(self.experiment, row)[1].validation)
        section = _section("ClassificationTask", "ImageDataModule", self.experiment.evaluate)
        name = f"evaluation/{row if made_by is None else f'{row}-ipc{ipc}'}/{network}/seed{seed}"
        val = self._split("val") if validation is None else self.path(validation.name)
        data = {"train": train, "val": val}
        config = _with_results(self._lightning(section, {"network": network, "seed": seed}, data, name, single=True))
        needs = [self.prepare(), made_by, validation]
        return self._add(name, "fit", config, needs, [self._external(self.experiment.data)])

    def _validation(self, kind: str) -> Stage | None:
        """A part of the validation images, chosen by their difficulties; none for all of them."""
        if kind == "all":
            return None
        val, name = self._split("val"), f"validation/{kind}"
        scores = self.scores("val", val, self.prepare(), self._external(self.experiment.data))
        config = expand({"config": f"select/validation_{kind}.yaml"})
        wiring = {"pool": val, "pool_scores": self.path("scores", "val"), "output": self.path(name)}
        return self._add(name, "select", {**config, **wiring, "seed": self.experiment.seed}, [self.prepare(), scores])

    def everything(self) -> list[Stage]:
        """All stages of the experiment, each after what it needs, the report last."""
        experiment = self.experiment
        rows = [(row, ipc) for ipc in experiment.ipcs for row in experiment.methods]
        for row, ipc in rows:
            self.distilled(row, ipc)
        for pool in ("dit", "minimax"):
            if f"pools/{pool}" in self.stages:
                self.judged(pool)
        for row, ipc in rows:
            for network in experiment.networks:
                for repeat in range(experiment.repeats):
                    self.evaluation(row, ipc, network, repeat)
        before = list(self.stages.values())
        self._add("report", "report", {"runs": [self.path()]}, before)
        return list(self.stages.values())


def _section(task: str, data: str, section: Settings) -> Settings:
    """Settings of a section, with these classes where neither it nor its files name others."""
    return merge({"model": {"class_path": task}, "data": {"class_path": data}}, expand(section))


def _with_results(settings: Settings, save_weights: bool = False) -> Settings:
    """Settings of a training with a callback that writes its result, and its weights where a later stage reads them."""
    callbacks = settings["trainer"].get("callbacks") or []
    paths = [callback.get("class_path") if isinstance(callback, dict) else callback for callback in callbacks]
    others = [
        callback
        for callback, path in zip(callbacks, paths, strict=True)
        if str(path).rpartition(".")[2] != "ResultWriter"
    ]
    if len(others) < len(callbacks) and not save_weights:
        return settings
    writer = {"class_path": "ResultWriter", "init_args": {"save_weights": save_weights}}
    return {**settings, "trainer": {**settings["trainer"], "callbacks": [*others, writer]}}

"""Sections of an experiment: how a kind of stage is run, as the YAML of the command of the stage."""

from typing import Any

from dgs_lightning.configs import class_name, expand, merge
from dgs_lightning.experiment.stage import Given, Settings, replaced


def given_settings(**settings: Any) -> Settings:  # noqa: ANN401
    """The settings that are set."""
    return {key: value for key, value in settings.items() if value is not None}


def wiring(task: Settings, data: Settings) -> Settings:
    """Settings of a task and a datamodule, at their places in the YAML of a command."""
    return {"model": {"init_args": task}, "data": {"init_args": data}}


def with_classes(task: str | None, data: str | None, section: Settings, *callbacks: str) -> Settings:
    """A section, expanded, with these classes and callbacks where neither it nor its files name them."""
    classes: Settings = {name: {"class_path": kind} for name, kind in (("model", task), ("data", data)) if kind}
    settings = merge(classes, expand(section))
    named = [class_name(callback) for callback in settings.get("trainer", {}).get("callbacks") or []]
    missing: list[Settings] = [{"class_path": kind} for kind in callbacks if kind not in named]
    return merge(settings, {"trainer": {"callbacks": missing}}) if missing else settings


def with_links(command: str, config: Settings) -> Settings:
    """Settings of a stage that follows links in the images outside of the run, if it reads any."""
    outside: list[Given] = []
    replaced(config, lambda part: outside.append(part) if isinstance(part, Given) else None)
    if outside and command in ("prepare", "select"):
        return {**config, "links": "follow"}
    if outside and class_name(config.get("data") or {}) == "ImageDataModule":
        return merge(config, {"data": {"init_args": {"loading": {"links": "follow"}}}})
    return config


def with_callback_settings(section: Settings, kind: str, **settings: Any) -> Settings:  # noqa: ANN401
    """A section in which the callbacks of a class have these settings."""
    trainer = section.get("trainer", {})
    callbacks = [
        merge({"class_path": callback} if isinstance(callback, str) else callback, {"init_args": settings})
        if class_name(callback) == kind
        else callback
        for callback in trainer.get("callbacks") or []
    ]
    return {**section, "trainer": {**trainer, "callbacks": callbacks}}


def classification(section: Settings) -> Settings:
    """A section that trains a classifier: for the published length, unless it says otherwise."""
    published: Settings = {"trainer": {"max_epochs": -1}}
    callbacks = ("PublishedLength", "ResultWriter")
    return merge(published, with_classes("ClassificationTask", "ImageDataModule", section, *callbacks))


def for_whole_set(section: Settings, ipc: int) -> Settings:
    """A section that trains a classifier on the whole training set, if its ``steps`` are meant for sets of this IPC.

    The row of the whole training set is compared with the sets as what they can reach at most, so it is trained longer.
    """

    def lengthened(callback: Any) -> Any:  # noqa: ANN401
        settings = (callback.get("init_args") or {}) if isinstance(callback, dict) else {}
        if class_name(callback) != "PublishedLength" or settings.get("steps") is None:
            return callback
        return {**callback, "init_args": {"steps_ipc": ipc, **settings}}

    callbacks = [lengthened(callback) for callback in section["trainer"]["callbacks"]]
    return {**section, "trainer": {**section["trainer"], "callbacks": callbacks}}

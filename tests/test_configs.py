from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dgs_lightning.commands.cli import check, function_arguments
from dgs_lightning.configs import ROOT, add_callbacks, expand, load_config, merge, remove_callbacks
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import main as run_experiment
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.tasks.gradient_matching import GradientMatchingTask

CallbacksOf = Callable[..., list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own, with configs in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.yaml").write_text("a: {x: 1, y: 1}\nb: 1\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\na: {y: 2}\n")
    (tmp_path / "third.yaml").write_text("base: second.yaml\nb: 3\n")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_config_changes_the_one_that_it_starts_from() -> None:
    assert load_config("third.yaml") == {"a": {"x": 1, "y": 2}, "b": 3}
    assert expand({"config": "third.yaml"}) == {"a": {"x": 1, "y": 2}, "b": 3}


def test_a_base_is_looked_up_among_the_shipped_configs(folder: Path) -> None:
    (folder / "mine.yaml").write_text("base: classify/digits\nmodel: {init_args: {learning_rate: 0.5}}\n")
    shipped, mine = load_config("classify/digits"), load_config("mine.yaml")
    assert mine.pop("model")["init_args"] == {**shipped.pop("model")["init_args"], "learning_rate": 0.5}
    assert mine == shipped


@pytest.mark.parametrize("text", ["base: circle.yaml", "base: other.yaml"])
def test_a_config_that_starts_from_itself_is_refused(text: str, folder: Path) -> None:
    (folder / "circle.yaml").write_text(text)
    (folder / "other.yaml").write_text("base: circle.yaml")
    with pytest.raises(InputError, match=r"circle.yaml: base: found a circle: .*circle.yaml -> .*circle.yaml"):
        load_config("circle.yaml")


def test_a_base_is_the_name_of_one_config(folder: Path) -> None:
    (folder / "two.yaml").write_text("base: [first.yaml, second.yaml]")
    with pytest.raises(InputError, match=r"two.yaml: base: found a list, expected text or null"):
        load_config("two.yaml")


def test_the_config_of_a_command_has_a_base(folder: Path) -> None:
    (folder / "train.yaml").write_text("base: classify/digits\ndata: {init_args: {train: a, val: b}}\n")
    check("fit", ["--config", "train.yaml"])
    (folder / "easy.yaml").write_text("base: select/validation_easy\nshare: 0.3\n")
    (folder / "more.yaml").write_text("pool: images\n")
    arguments, _ = function_arguments("select", ["--output", "set", "--config=easy.yaml", "--config", "more.yaml"])
    assert (arguments["share"], arguments["pool"], arguments["output"]) == (0.3, "images", "set")
    assert arguments["method"] == load_config("select/validation_easy")["method"]


GRID = {"class_path": "dgs_lightning.SampleGrid", "init_args": {"classes": 3}}


@pytest.mark.parametrize(
    ("shipped", "own", "both"),
    [
        (["Resume"], ["Timer"], ["Resume", "Timer"]),
        (["SampleGrid", "Timer"], [GRID], [GRID, "Timer"]),
        (["Timer"], ["Timer", GRID, "Timer"], ["Timer", GRID, "Timer"]),
        (["Timer", GRID, "Timer"], ["Timer"], ["Timer", GRID]),
        ([], [], []),
    ],
    ids=["another class", "the same class", "several of the user's", "several of the config's", "none"],
)
def test_own_callbacks_are_added_and_take_the_place_of_their_class(
    shipped: list[object], own: list[object], both: list[object]
) -> None:
    assert add_callbacks(shipped, own) == both


def test_lists_of_callbacks_are_added_wherever_settings_are_merged() -> None:
    both = merge({"fit": {"trainer": {"callbacks": ["A"]}}}, {"fit": {"trainer": {"callbacks": ["B"]}}})
    assert both == {"fit": {"trainer": {"callbacks": ["A", "B"]}}}
    assert merge({"callbacks": ["A"]}, {"callbacks": ["B"]}) == {"callbacks": ["B"]}  # not those of a trainer


def test_a_callback_is_removed_with_all_changes_of_it_before() -> None:
    def trainer(*callbacks: object) -> dict[str, object]:
        return {"trainer": {"callbacks": list(callbacks)}}

    removal = {"remove": "SampleGrid"}
    changes = merge(trainer(GRID), trainer(removal))  # an experiment's section and a `--set` on it
    assert remove_callbacks(merge(trainer("Timer", "SampleGrid"), changes)) == trainer("Timer")
    assert remove_callbacks(merge(trainer("SampleGrid"), trainer(removal, GRID))) == trainer(GRID)
    with pytest.raises(InputError, match=r"found \{remove: SampleGrid\}, but no SampleGrid, expected .*\(Timer\)"):
        remove_callbacks(trainer("Timer", removal))


def test_a_class_and_its_settings_may_stand_in_different_configs() -> None:
    settings = {"init_args": {"classes": 3}}
    assert merge({"model": "Mine"}, {"model": settings}) == {"model": {"class_path": "Mine", **settings}}
    assert merge({"model": settings}, {"model": "Mine"}) == {"model": {**settings, "class_path": "Mine"}}


@pytest.fixture
def callbacks_of(capsys: pytest.CaptureFixture[str]) -> CallbacksOf:
    """Callbacks of ``dgs fit`` with ``minimax/digits.yaml`` and more arguments, as ``--print_config`` says."""

    def read(*args: str) -> list[tuple[str, dict[str, Any]]]:
        shipped = ["--config=minimax/digits.yaml", "--model.dit=D", "--data.cache=C"]
        with pytest.raises(SystemExit):
            check("fit", [*shipped, *args, "--print_config"])
        callbacks = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
        return [(callback["class_path"].rpartition(".")[2], callback.get("init_args", {})) for callback in callbacks]

    return read


@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.callbacks=SampleGrid", "--trainer.callbacks.classes=3"],
        ["--trainer.callbacks", "SampleGrid", "--trainer.callbacks.classes", "3"],
        ["--trainer.callbacks+=SampleGrid", "--trainer.callbacks.init_args.classes=3"],
        ["--trainer.callbacks=[{class_path: SampleGrid, init_args: {classes: 3}}]"],
        ["--config=grid.yaml"],
        ["--trainer=trainer.yaml"],
        ["--trainer={callbacks: [{class_path: SampleGrid, init_args: {classes: 3}}]}"],
    ],
    ids=["equals", "two words", "plus", "list", "second config", "trainer file", "trainer"],
)
def test_a_callback_of_the_command_line_keeps_the_shipped_ones(
    args: list[str], folder: Path, callbacks_of: CallbacksOf
) -> None:
    (folder / "trainer.yaml").write_text("callbacks: [{class_path: SampleGrid, init_args: {classes: 3}}]")
    (folder / "grid.yaml").write_text("trainer: {callbacks: [{class_path: SampleGrid, init_args: {classes: 3}}]}")
    (resume, settings), (grid, own), (writer, _) = callbacks_of(*args)
    assert writer == "WeightsWriter"
    assert (resume, settings["every_n_steps"]) == ("ResumeCheckpoint", 200)
    assert (grid, own["classes"], own["guidance_scale"]) == ("SampleGrid", 3, 4.0)


def test_several_callbacks_of_one_class_may_be_added_on_the_command_line(callbacks_of: CallbacksOf) -> None:
    once = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath="]
    names, settings = zip(*callbacks_of(*once[:1], once[1] + "007", *once[:1], once[1] + "b"), strict=True)
    assert names == ("ResumeCheckpoint", "SampleGrid", "WeightsWriter", "ModelCheckpoint", "ModelCheckpoint")
    assert [own["dirpath"] for own in settings[3:]] == ["007", "b"]  # text stays text


def test_a_callback_is_removed_on_the_command_line(callbacks_of: CallbacksOf) -> None:
    left = [name for name, _ in callbacks_of("--trainer.callbacks=[{remove: SampleGrid}]")]
    assert left == ["ResumeCheckpoint", "WeightsWriter"]
    with pytest.raises(InputError, match=r"no SampleGrd, expected .*\(ResumeCheckpoint, SampleGrid, WeightsWriter\)"):
        callbacks_of("--trainer.callbacks=[{remove: SampleGrd}]")


def test_callbacks_of_an_experiment_keep_the_shipped_ones(tmp_path: Path) -> None:
    def callbacks(*changes: str) -> list[str]:
        plan = Plan(load_experiment("quickstart", list(changes), str(tmp_path)))
        stages = {stage.name: stage for stage in plan.everything()}
        return [
            callback if isinstance(callback, str) else callback["class_path"]
            for callback in stages["finetune"].config["trainer"]["callbacks"]
        ]

    shipped = ["ResumeCheckpoint", "SampleGrid", "WeightsWriter"]
    assert callbacks() == shipped
    assert callbacks("trainer.callbacks=[Timer]") == [*shipped, "Timer"]
    both = ["finetune.trainer.callbacks=[{remove: SampleGrid}]", "finetune.trainer.callbacks=[Timer]"]
    assert callbacks(*both) == ["ResumeCheckpoint", "WeightsWriter", "Timer"]
    with pytest.raises(InputError, match=r"trainer\.callbacks: found \{remove: Timer\}, but no Timer"):
        callbacks("finetune.trainer.callbacks=[{remove: Timer}]")


def test_settings_without_a_class_are_those_of_the_last_callback_of_the_config(
    folder: Path, callbacks_of: CallbacksOf
) -> None:
    (folder / "last.yaml").write_text("trainer: {callbacks: [LearningRateMonitor]}")
    for more in ([], ["--trainer.callbacks+=DeviceStatsMonitor"]):
        callbacks = dict(callbacks_of("--config=last.yaml", "--trainer.callbacks.logging_interval=step", *more))
        assert callbacks["LearningRateMonitor"]["logging_interval"] == "step"


def test_a_dry_run_shows_the_callbacks_of_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "finetune.trainer.callbacks=[{remove: SampleGrid}, Timer]"]
    run_experiment(["quickstart", "--dry-run", "--output", str(tmp_path / "run"), *changes])
    lines = {line.split()[1]: line.partition("  # ")[2] for line in capsys.readouterr().out.splitlines()}
    assert lines["finetune"] == "ResumeCheckpoint, WeightsWriter, Timer"
    assert lines["pretrain"] == "ResumeCheckpoint, SampleGrid, WeightsWriter"
    assert lines["data"] == ""
    assert not list(tmp_path.iterdir())


def test_shipped_configs_of_matching_have_settings_that_the_command_line_takes() -> None:
    names = sorted(path.stem for path in (ROOT / "match").glob("*.yaml"))
    assert {"dc", "dsa", "dm", "idc1", "idc"} <= set(names)
    for name in names:
        path = ROOT / "match" / f"{name}.yaml"
        assert path.read_text().startswith(f"# dgs fit --config match/{name}.yaml --data.train ORIGINALS ")
        check("fit", ["--config", f"match/{name}", "--data.train", "images"])


@pytest.mark.parametrize(
    ("name", "ipc", "rate", "images"),
    [
        ("idc1_imagenet", 1, 3e-4, 1),
        ("idc_imagenet", 10, 3e-3, 90),
        ("idc_imagenet", 50, 1.5e-2, 450),
        ("idc1_imagewoof128", 10, 3e-3 * (128 / 224) ** 2, 10),
    ],
)
def test_configs_of_idc_on_imagenet_have_the_published_rate_and_number_of_images(
    name: str, ipc: int, rate: float, images: int
) -> None:
    settings = expand({"config": f"match/{name}.yaml"})["model"]["init_args"]
    task = GradientMatchingTask(**merge(settings, {"images": {"ipc": ipc}}))
    assert task.lr == pytest.approx(rate, rel=1e-3)
    assert ipc * task.learned.factor**2 == images
    assert (task.metric, task.fitting.early, task.fitting.cutmix) == ("l1", 10, 1.0)

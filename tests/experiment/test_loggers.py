from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dgs_lightning.__main__ import main
from dgs_lightning.experiment.loggers import with_logger
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import stage_keys

LOGS = "lightning_logs"
TINY = ("methods=[random]", "jobs=1", "ipc=1", "draws=1", "folds=2", "judge=null", "cross_fit.trainer.max_steps=2")
TRAINING = "evaluation/random-ipc1/convnet2/seed0"


def run(output: Path, *changes: str) -> int:
    settings = [part for change in (*TINY, *changes) for part in ("--set", change)]
    return main(["run", "quickstart", "--output", str(output), *settings])


def settings_of(stage: str, *changes: str) -> dict[str, object]:
    experiment = load_experiment("quickstart", ["methods=[random, dit]", *changes])
    found = {stage.name: stage for stage in Plan(experiment).everything()}[stage]
    trainer = with_logger(found, experiment, Path("RUN")).get("trainer", {})
    assert isinstance(trainer, dict)
    return dict(trainer)


@pytest.mark.slow
def test_a_run_logs_into_csv_and_the_report_goes_to_tensorboard_or_wandb(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(output, "logger=csv", "evaluate.trainer.max_steps=2") == 0
    (metrics,) = (output / LOGS / TRAINING).rglob("metrics.csv")
    assert "val/accuracy" in metrics.read_text().splitlines()[0]
    assert {path.parent.parent.name for path in (output / LOGS).rglob("metrics.csv")} >= {"fold0", "fold1", "seed0"}
    before = {path: path.stat().st_mtime_ns for path in (output / "stages").rglob("*.json")}
    assert run(output, "evaluate.trainer.max_steps=3") == 0  # TensorBoard: what had no other setting is not run again
    again = {p.relative_to(output / "stages").as_posix() for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert again == {f"{TRAINING}.json", "report.json"}
    events = EventAccumulator(str(output / LOGS / "report")).Reload().Tags()
    assert events["images"]
    assert "tables/summary/text_summary" in events["tensors"]
    if find_spec("wandb") is None:
        pytest.skip("wandb, of the extra dev, is not installed")
    offline = "logger={class_path: WandbLogger, init_args: {offline: true}}"
    assert run(output, offline, "evaluate.trainer.max_steps=2") == 0
    for stage in (TRAINING, "report"):
        assert len(list((output / LOGS / stage / "wandb").glob("offline-run-*"))) == 1


def test_the_logger_is_part_of_no_key_and_groups_stages_under_the_name_of_the_run() -> None:
    plain, logged = (
        Plan(load_experiment("quickstart", changes)).everything() for changes in ([], ["logger=wandb", "name=mine"])
    )
    assert stage_keys(plain, {}) == stage_keys(logged, {})
    logger = settings_of("estimator/fold0", "logger=wandb", "name=mine")["logger"]
    assert logger == {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"save_dir": f"RUN/{LOGS}/estimator/fold0", "name": "estimator/fold0", "project": "dgs-lightning"},
        "dict_kwargs": {"group": "mine"},
    }
    assert "logger" not in settings_of("estimator/fold0")
    assert settings_of("scores/original", "logger=csv")["logger"] is False  # it shows nothing
    assert settings_of("pools/dit")["logger"] is True


def test_a_mapping_is_that_of_lightning_and_comes_before_ours() -> None:
    text = "logger={class_path: MLFlowLogger, init_args: {experiment_name: theirs, tracking_uri: 'http://here'}}"
    logger = settings_of("pools/dit", text)["logger"]
    assert isinstance(logger, dict)
    assert logger["init_args"] == {
        "experiment_name": "theirs",
        "run_name": "pools/dit",
        "save_dir": f"RUN/{LOGS}/mlruns",
        "tracking_uri": "http://here",
    }
    assert settings_of("pretrain", "logger=csv", "pretrain.trainer.logger=false")["logger"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("logger=mlflow", "logger=mlflow: found no package mlflow, expected it beside dgs-lightning. Run: pip install"),
        ("logger={project: mine}", "logger: found a mapping with project, expected a mapping with class_path"),
        ("logger=paper", "--set logger: found 'paper', expected"),
    ],
)
@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_logger_that_cannot_be_used_is_one_line_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    change: str,
    message: str,
) -> None:
    monkeypatch.setattr("dgs_lightning.experiment.loggers.find_spec", lambda name: None)
    changes = [part for text in (*TINY, change) for part in ("--set", text)]
    assert main([command, "quickstart", "--output", str(tmp_path / "run"), *changes]) in (1, 2)
    captured = capsys.readouterr()
    assert message.partition(", expected")[0] in captured.out + captured.err
    assert not (tmp_path / "run").exists()

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import DemoModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dgs_lightning.callbacks.score_writer import ScoreWriter
from dgs_lightning.data.cards import read_card, write_card
from dgs_lightning.data.folders import read_set, scan_images
from dgs_lightning.data.histograms import EVENTS
from dgs_lightning.data.records import ImageRecord, read_manifest, require_scores, write_manifest
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.examples import QUIET
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier, save_classifier
from dgs_lightning.runs.lock import locked
from dgs_lightning.tasks.scoring import ScoringTask

CONFIG = ClassifierConfig("convnet1", ("ant", "bee"), 4, 3, (0.5,) * 3, (0.25,) * 3, width=4)


class Counting(L.Callback):
    """Counts batches, and ends the process by a signal after some."""

    def __init__(self, kill_after: int = 0) -> None:
        self.batches = 0
        self.kill_after = kill_after

    def on_predict_batch_end(self, *_: object) -> None:
        self.batches += 1
        if self.batches == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def images(make_set: Callable[..., Path]) -> Path:
    return make_set("images", {label: [f"{i}.png" for i in range(7)] for label in CONFIG.labels}, size=4)


@pytest.fixture
def estimator(tmp_path: Path) -> Callable[[int], str]:
    """Writes an untrained classifier by seed."""

    def write(seed: int) -> str:
        torch.manual_seed(seed)
        save_classifier(CONFIG.build(), CONFIG, tmp_path / f"estimator{seed}")
        return str(tmp_path / f"estimator{seed}")

    return write


def score(estimator: str, images: Path, output: Path | None, kill_after: int = 0, batch_size: int = 2) -> int:
    """Score a set; returns the number of batches that it took."""
    counting = Counting(kill_after)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[ScoreWriter(None if output is None else str(output)), counting],
    )
    trainer.predict(ScoringTask(estimator), ImageDataModule(predict=str(images), val_batch_size=batch_size))
    return counting.batches


def killed(estimator: str, images: Path, output: Path | None, kill_after: int) -> None:
    process = multiprocessing.get_context("fork").Process(target=score, args=(estimator, images, output, kill_after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_scores_go_into_a_folder_of_their_own(images: Path, estimator: Callable[[int], str], tmp_path: Path) -> None:
    before = contents(images)
    score(estimator(0), images, tmp_path / "scores")
    assert contents(images) == before
    assert sorted(contents(tmp_path / "scores")) == ["dataset.json", EVENTS, "metadata.jsonl"]
    records = read_set(images, tmp_path / "scores")
    assert require_scores(records, images).startswith("convnet1@")
    assert all(record.predicted in CONFIG.labels for record in records)
    card = read_card(tmp_path / "scores")
    assert (card["kind"], card["images"], card["labels"]) == ("scores", 14, {"ant": "ant", "bee": "bee"})
    assert card["scoring"]["estimator"] == records[0].estimator
    assert "not cross-fitted" in card["scoring"]["note"]


def test_the_largest_probability_is_kept_on_request(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    writer = ScoreWriter(str(tmp_path / "scores"))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[writer])
    trainer.predict(ScoringTask(estimator(0), confidence=True), ImageDataModule(predict=str(images)))
    for record in read_set(images, tmp_path / "scores"):
        p_true = 1 - (record.difficulty or 0)
        expected = p_true if record.predicted == record.label else 1 - p_true  # of two classes
        assert record.extra["confidence"] == pytest.approx(expected)


def test_scores_go_into_the_sets_own_metadata_and_leave_the_rest_of_it(
    images: Path, estimator: Callable[[int], str]
) -> None:
    records = [ImageRecord(r.file_name, r.label, seed=5, extra={"kept": True}) for r in scan_images(images)]
    write_manifest(images, records)
    write_card(images, {"kind": "pool", "name": "p"})
    score(estimator(0), images, None)
    scored = read_set(images)
    require_scores(scored, images)
    assert all(record.seed == 5 and record.extra == {"kept": True} for record in scored)
    card = read_card(images)
    assert (card["kind"], card["name"]) == ("pool", "p")
    assert "note" not in card["scoring"]  # no classifier is trained on a pool before it is made


def test_tensorboard_shows_the_difficulties(images: Path, estimator: Callable[[int], str], tmp_path: Path) -> None:
    score(estimator(0), images, tmp_path / "scores")
    (shown,) = EventAccumulator(str(tmp_path / "scores")).Reload().Histograms("difficulty")
    difficulties = [record.difficulty or 0 for record in read_manifest(tmp_path / "scores")]
    assert shown.histogram_value.num == len(difficulties)
    assert shown.histogram_value.sum == pytest.approx(sum(difficulties))


def test_difficulties_keep_all_their_digits(images: Path, estimator: Callable[[int], str], tmp_path: Path) -> None:
    score(estimator(0), images, tmp_path / "scores")
    lines = (tmp_path / "scores" / "metadata.jsonl").read_text().splitlines()
    assert all(len(repr(json.loads(line)["difficulty"])) > 12 for line in lines)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    images: Path, estimator: Callable[[int], str], tmp_path: Path, in_place: bool
) -> None:
    name, output = estimator(0), None if in_place else tmp_path / "scores"
    folder = output or images
    assert score(name, images, output) == 7
    undisturbed = contents(folder)
    (folder / "metadata.jsonl").unlink()
    (folder / "dataset.json").unlink()
    killed(name, images, output, kill_after=3)
    assert not (folder / "metadata.jsonl").exists()
    journal = folder / ".unfinished" / "0.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # the third line was cut off while it was written
    killed(name, images, output, kill_after=2)
    assert score(name, images, output) == 3
    assert contents(folder) == undisturbed


def test_a_run_killed_before_the_last_step_only_writes_the_result(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    name = estimator(0)
    killed(name, images, tmp_path / "scores", kill_after=7)
    assert not (tmp_path / "scores" / "metadata.jsonl").exists()
    assert score(name, images, tmp_path / "scores") == 0
    assert len(read_manifest(tmp_path / "scores")) == 14


def test_a_full_disk_is_told_in_words_and_what_is_finished_is_kept(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    name = estimator(0)
    score(name, images, tmp_path / "whole")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))
    try:
        with pytest.raises(InputError, match="Free space"):
            score(name, images, tmp_path / "scores")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 0 < score(name, images, tmp_path / "scores") < 7
    assert contents(tmp_path / "scores") == contents(tmp_path / "whole")


def test_scores_that_are_there_are_left_alone(images: Path, estimator: Callable[[int], str], tmp_path: Path) -> None:
    name = estimator(0)
    score(name, images, tmp_path / "scores")
    before = contents(tmp_path / "scores")
    (tmp_path / "scores" / ".unfinished").mkdir()
    (tmp_path / "scores" / ".unfinished" / "lock").write_text("left by a run that was killed as it cleaned up")
    assert score(name, images, tmp_path / "scores") == 0
    assert contents(tmp_path / "scores") == before


def test_scores_that_lost_lines_are_written_again(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    name, manifest = estimator(0), tmp_path / "scores" / "metadata.jsonl"
    score(name, images, tmp_path / "scores")
    whole = manifest.read_text()
    manifest.write_text(whole[: whole.index("\n") + 1])
    score(name, images, tmp_path / "scores")
    assert manifest.read_text() == whole


@pytest.mark.parametrize("change", ["estimator", "image", "label"])
def test_scores_of_another_estimator_or_other_images_are_replaced_as_a_whole(
    images: Path, estimator: Callable[[int], str], tmp_path: Path, change: str
) -> None:
    score(estimator(0), images, tmp_path / "scores")
    name = estimator(1 if change == "estimator" else 0)
    if change == "image":
        (images / "ant" / "0.png").write_bytes((images / "ant" / "1.png").read_bytes())
    elif change == "label":
        (images / "ant" / "0.png").rename(images / "bee" / "zero.png")
    killed(name, images, tmp_path / "scores", kill_after=2)
    assert score(name, images, tmp_path / "scores") == 5
    fresh = tmp_path / "fresh"
    score(name, images, fresh)
    assert contents(tmp_path / "scores") == contents(fresh)


def test_another_image_set_is_never_overwritten(images: Path, estimator: Callable[[int], str], tmp_path: Path) -> None:
    write_manifest(tmp_path / "other", [ImageRecord("a/1.png", "a")])
    before = contents(tmp_path / "other")
    with pytest.raises(InputError, match="Name another output"):
        score(estimator(0), images, tmp_path / "other")
    assert contents(tmp_path / "other") == before


@pytest.fixture
def constant(tmp_path: Path) -> str:
    """Writes a classifier that takes every image for a bee."""
    network = CONFIG.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        [*network.parameters()][-1][1] = 1.0
    save_classifier(network, CONFIG, tmp_path / "constant")
    return str(tmp_path / "constant")


def test_scores_of_originals_by_an_estimator_at_chance_end_in_an_error_and_again_when_resumed(
    make_set: Callable[..., Path], constant: str, tmp_path: Path
) -> None:
    many = make_set("many", {label: [f"{i}.png" for i in range(30)] for label in CONFIG.labels}, size=4)
    message = (
        r"estimator convnet1@\w+: found 50.0% of 60 images recognised.*chance is 50.0%.*WordNet id.*check_accuracy"
    )
    for _ in range(2):  # the second run finds all scores
        with pytest.raises(InputError, match=message):
            score(constant, many, tmp_path / "scores", batch_size=16)
    assert len(read_manifest(tmp_path / "scores")) == 60
    task, trainer = ScoringTask(constant, check_accuracy=False), L.Trainer(**QUIET, callbacks=[ScoreWriter()])
    trainer.predict(task, ImageDataModule(predict=str(many), val_batch_size=16))  # the user goes on
    write_card(many, {"kind": "pool", "name": "p"})
    score(constant, many, tmp_path / "pool", batch_size=16)  # a generator is not a matter of the estimator


def test_few_images_or_an_estimator_fitted_out_of_fold_are_not_held_against_chance(
    make_set: Callable[..., Path], constant: str, images: Path, tmp_path: Path
) -> None:
    score(constant, images, tmp_path / "few")
    many = make_set("many", {label: [f"{i}.png" for i in range(30)] for label in CONFIG.labels}, size=4)
    network, config = load_classifier(Path(constant))
    save_classifier(network, replace(config, folds=2, fold=0), tmp_path / "fold0")
    score(str(tmp_path / "fold0"), many, tmp_path / "scores", batch_size=16)


def test_the_callback_works_with_scoring_alone(images: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[ScoreWriter()])
    with pytest.raises(InputError, match="ScoreWriter: found DemoModel, expected ScoringTask"):
        trainer.predict(DemoModel(), ImageDataModule(predict=str(images)))


@pytest.mark.parametrize("place", ["apart", "in the set", "over older scores"])
def test_scores_are_resumed_whenever_they_are_stopped(
    estimator: Callable[[int], str],
    make_set: Callable[..., Path],
    tmp_path: Path,
    killed_at_changes: Callable[..., list[int]],
    place: str,
) -> None:
    old, name = estimator(1), estimator(0)

    def folder_of(number: int) -> Path:
        images = make_set(f"{number}", {label: ["0.png"] for label in CONFIG.labels}, size=4)
        if place == "over older scores":
            score(old, images, tmp_path / f"scores{number}")
        return images if place == "in the set" else tmp_path / f"scores{number}"

    def job(number: int) -> int:
        output = None if place == "in the set" else tmp_path / f"scores{number}"
        return score(name, tmp_path / f"{number}", output, batch_size=1)

    undisturbed = folder_of(0)
    job(0)
    kills = killed_at_changes(folder_of, job, step=1 if place == "apart" else 4)
    assert len(kills) > 3
    expected = {name: data.replace(b"scores of 0", b"scores of N") for name, data in contents(undisturbed).items()}
    for number in kills:
        folder = tmp_path / (f"{number}" if place == "in the set" else f"scores{number}")
        found = contents(folder)
        named = f"scores of {number}".encode()
        assert {name: data.replace(named, b"scores of N") for name, data in found.items()} == expected


def test_scores_that_were_altered_in_the_journal_are_computed_again(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    name = estimator(0)
    score(name, images, tmp_path / "whole")
    killed(name, images, tmp_path / "scores", kill_after=3)
    journal = tmp_path / "scores" / ".unfinished" / "0.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1].replace("0.", "0.1", 1) + lines[2])
    assert score(name, images, tmp_path / "scores") == 5
    assert contents(tmp_path / "scores") == contents(tmp_path / "whole")


def test_a_folder_of_unfinished_images_is_not_scored_into(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    Unfinished(tmp_path / "pool", "images").begin({})
    with pytest.raises(InputError, match="found unfinished images"):
        score(estimator(0), images, tmp_path / "pool")


def test_a_second_run_that_scores_into_the_same_folder_is_refused(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    name, hidden = estimator(0), tmp_path / "scores" / ".unfinished"
    hidden.mkdir(parents=True)
    with locked(hidden / "lock"), pytest.raises(InputError, match="scores: found another run that writes into it"):
        score(name, images, tmp_path / "scores")
    assert score(name, images, tmp_path / "scores") == 7


def test_a_link_in_place_of_the_lock_is_not_followed(
    images: Path, estimator: Callable[[int], str], tmp_path: Path
) -> None:
    hidden = tmp_path / "scores" / ".unfinished"
    hidden.mkdir(parents=True)
    (tmp_path / "thesis").write_text("mine")
    (hidden / "lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(InputError, match="a symbolic link"):
        score(estimator(0), images, tmp_path / "scores")
    assert (tmp_path / "thesis").read_text() == "mine"

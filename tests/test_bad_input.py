"""What a user gives works, or one clear line says what is wrong: no traceback, no code run, nothing else written."""

import binascii
import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

import dgs_lightning
from dgs_lightning import bounds
from dgs_lightning.__main__ import main
from dgs_lightning.bounds import Between, check_bounds
from dgs_lightning.callbacks.checkpointing import KEYS, check_readable
from dgs_lightning.commands.cli import check
from dgs_lightning.data.latents import CacheSettings, LatentCache, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord, read_manifest, write_manifest
from dgs_lightning.distil.centers import read_centers
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.dit.formats import export_diffusers, load_dit, save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.models.estimator import load_estimator

LIBRARIES = ("Traceback", "Subtypes", "Does not validate", "weights_only", "usage:", "\x1b")
CLASSES = ("cat", "dog")


def answer(*arguments: str) -> str:
    """What a command that refuses says, checked to be one clear line."""
    status, said = run(*arguments)
    assert status == 2, said or "it succeeded"
    return said


def run(*arguments: str) -> tuple[int, str]:
    """Exit status of a command and what it says on stderr, checked to be nothing or one clear line."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        status = main(arguments)
    said = told.getvalue()
    if status == 2:
        check_line(said)
        assert said.startswith(f"dgs {arguments[0]}: ")
    return status, said


def check_line(said: str) -> None:
    assert said.count("\n") == 1, said
    assert ": found " in said, said
    assert ", expected " in said, said
    assert len(said) < 1200, said
    assert not [words for words in LIBRARIES if words in said], said


@contextlib.contextmanager
def nothing_else_written(root: Path, output: Path) -> Iterator[None]:
    """Check that files around an output folder stay as they are."""
    before = digests(root, output)
    yield
    assert digests(root, output) == before


def digests(root: Path, output: Path) -> dict[str, str]:
    """What is below a folder, outside the output."""
    found = {}
    for path in sorted(root.rglob("*")):
        if not path.is_relative_to(output):
            what = os.readlink(path) if path.is_symlink() else "folder" if path.is_dir() else "other"
            if path.is_file() and not path.is_symlink():
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(root))] = what
    return found


# ---- settings ----------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2**31, 10**12, 10**400]),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.5, 1e-300, 1e300]),
    st.sampled_from(["", "x", "..", "a/../../b", "\0", "nul\0", "é", "null", "1e400", "torchvision:nope", "timm:"]),
    st.just([]),
    st.lists(st.sampled_from([None, -1, 0, "x", float("nan"), [], {}]), max_size=3),
    st.dictionaries(st.sampled_from(["class_path", "init_args", "config", "trainer", "method"]), st.integers(-1, 1)),
)
FEW = (
    "methods=[random, dit]",
    "draws=1",
    "repeats=1",
    "folds=2",
    "judge=null",
)  # stages, so that planning them is quick
NAMES = [setting.name for setting in fields(Experiment)]


def changes(*settings: str) -> list[str]:
    """Arguments that change settings."""
    return [part for setting in settings for part in ("--set", setting)]


@given(name=st.sampled_from(NAMES), value=JUNK)
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_setting_of_an_experiment_is_planned_or_refused_in_words(name: str, value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder, "one", "two")  # some values are paths, and lead upwards
        inside.mkdir(parents=True)
        with contextlib.chdir(inside):
            run("run", "quickstart", "--dry-run", *changes(*FEW, f"{name}={json.dumps(value)}"))
        assert [path.name for path in Path(folder).rglob("*")] == ["one", "two"]


@pytest.mark.parametrize("name", [*NAMES, "latents.trainer", "latents.trainer.callbacks", "generate.config", "dag"])
def test_nothing_is_no_value_of_a_setting_that_needs_one(name: str) -> None:
    run("run", "quickstart", "--dry-run", "--output", "nowhere", *changes(*FEW, f"{name}=null"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seed=-1", "seed: found -1"),
        ("repeats=1000000000", "repeats: found"),
        ("draws=0", "draws: found 0, expected at least 1, at most 1000"),
        ("threads=1000000", "threads: found"),
        ("guided=dream", "guided"),
        ("variants={../x: {method: random}}\nmethods=[../x]", "'../x', expected names of folders"),
        ("networks=[../x]", "'../x', expected names of folders"),
        ("variants={a: {method: dit, select: 3}}", "--set variants.a.select: found 3, expected a mapping"),
        ("variants={a: {method: dit, dag: null}}", "--set variants.a.dag: found null"),
        ("variants={a: {method: dit, pool_multiple: many}}", "variants.a.pool_multiple: found 'many'"),
        ("variants={a: {method: dit, pool_multiple: -3}}", "variants.a.pool_multiple: found -3, expected at least 1"),
        ("latents.trainer=3", "trainer: found 3"),
        ("latents.model.init_args=3", "model.init_args: found 3"),
        ("generate.trainer.callbacks=3", "trainer.callbacks: found 3"),
        ("generate.config=[3]", "config '3': found no such file"),
    ],
)
def test_a_wrong_experiment_is_refused_before_it_is_planned(change: str, says: str, tmp_path: Path) -> None:
    arguments = ("--dry-run", "--output", str(tmp_path / "out"), *changes(*FEW, *change.split("\n")))
    assert says in answer("run", "quickstart", *arguments)
    assert not list(tmp_path.iterdir())


LENGTH = "trainer.callbacks=[{class_path: PublishedLength, init_args: "


@pytest.mark.parametrize(
    ("stage", "change", "says"),
    [
        ("evaluation", f"evaluate.{LENGTH}{{steps: -1}}}}]", "steps: found -1"),
        (
            "evaluation",
            f"evaluate.{LENGTH}{{steps: 1, epochs: 5}}}}]",
            "epochs: found 5, beside steps 1, expected either",
        ),
        ("evaluation", "evaluate.model.init_args.optimizer.lr=.nan", "optimizer.lr: found nan"),
        (
            "evaluation",
            "evaluate.model.init_args.normalisation={mean: [0.5, 0.5], std: [0.2, 0]}",
            "std: found (0.2, 0.0)",
        ),
        ("evaluation", "evaluate.data.init_args.loading.num_workers=-1", "loading.num_workers: found -1"),
        ("evaluation", "evaluate.data.init_args.batch_size=-1", "batch_size: found -1"),
        ("evaluation", "evaluate.trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch: found 0"),
        ("evaluation", "networks=[convnet0]", "network 'convnet0': found 0 layers"),
        ("evaluation", "networks=[convnet99999999999]", "found 99999999999 layers"),
        ("evaluation", "networks=['torchvision:nope']", "network 'torchvision:nope': found no such network"),
        ("estimator", "cross_fit.model.init_args.augmentation.jitter=.inf", "jitter: found inf"),
        ("pools", "generate.model.init_args.guidance_scale=.nan", "guidance_scale: found nan"),
        ("pools", "generate.model.init_args.steps=0", "steps: found 0"),
        ("pools", "generate.data.init_args.batch_size=0", "batch_size: found 0"),
        ("pools", "generate.trainer.limit_predict_batches=-1", "limit_predict_batches: found -1"),
        ("finetune", "finetune.model.init_args.criteria.memory_size=1000000000000", "memory_size: found 1000000000000"),
        ("finetune", "finetune.model.init_args.optimizer.learning_rate=.inf", "learning_rate: found inf"),
        ("finetune", "finetune.trainer.max_steps=-2", "max_steps: found -2"),
        ("pretrain", "pretrain.model.init_args.size.patch_size=0", "patch_size: found 0"),
        ("pretrain", "pretrain.model.init_args.size.num_heads=7", "num_heads 7"),
        ("pretrain", "pretrain.model.init_args.size.name=DiT-S/0", "'DiT-S/0'"),
        ("pretrain", "pretrain.model.init_args.depth=2", "expected model.size.depth. Rename it"),
        ("pretrain", "pretrain.model.init_args.ema_horizon=0.1", "expected model.average.horizon. Rename it"),
        ("finetune", "finetune.model.init_args.diversity=0", "expected model.criteria.diversity. Rename it"),
        ("guided/mgd3", "mgd3.scale=.nan", "scale: found nan"),
        ("centers/dag", "dag.intervals=0", "intervals: found 0"),
        ("distilled/dit", "select.hard_cutoff=.nan", "hard_cutoff: found nan"),
        ("distilled/dit", "select.intervals=1000000000000", "intervals: found 1000000000000"),
        (
            "distilled/dit",
            "select.smoothing_forks={epsilon: small}",
            "smoothing_forks.epsilon: found 'small', expected a number",
        ),
        ("scores", "score.data.init_args.val_batch_size=0", "val_batch_size: found 0"),
        ("data", "prepare.val_fraction=.nan", "val_fraction: found nan"),
        ("data", "prepare.channels=2", "channels: found 2"),
        ("latents", "trainer.devices=-5", "devices: found -5"),
        ("pools", "generate.model.init_args.num_heads=0", "num_heads: found 0"),
        ("distilled/dit", "select.strata=1000000000000", "strata: found 1000000000000"),
    ],
)
def test_a_stage_refuses_a_setting_before_the_run_begins(stage: str, change: str, says: str, tmp_path: Path) -> None:
    plan = Plan(
        load_experiment("quickstart", ["methods=[dit, minimax, mgd3, dag]", "repeats=1", change], str(tmp_path))
    )
    chosen = next(planned for planned in plan.everything() if planned.name.startswith(stage))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(chosen.settings(tmp_path)))
    with pytest.raises(InputError) as refused:
        check(chosen.command, ["--config", str(config)])
    assert says in str(refused.value)


def test_a_run_with_a_wrong_setting_of_its_last_stage_does_not_begin(tmp_path: Path) -> None:
    arguments = ("--output", str(tmp_path / "run"), *changes(*FEW, "evaluate.trainer.max_epochs=-2"))
    assert "max_epochs: found -2" in answer("run", "quickstart", *arguments)
    assert not list(tmp_path.rglob("*.json"))


def limited(owner: Callable[..., Any], prefix: str = "") -> Iterator[str]:
    """Names of the settings whose numbers have limits, such as ``optimizer.lr``."""
    for name, parameter in bounds._parameters(owner).items():
        if any(isinstance(limit, Between) for limit in bounds._limits(parameter.annotation)):
            yield f"{prefix}{name}"
        if group := bounds._group(parameter.annotation):
            yield from limited(group, f"{prefix}{name}.")


@pytest.mark.parametrize("name", dgs_lightning.__all__)
def test_no_limited_setting_takes_nan_or_infinity(name: str) -> None:
    kind = getattr(dgs_lightning, name)
    for setting in limited(kind):
        for value in (float("nan"), float("inf"), -float("inf")):
            wrong: Any = value
            for key in reversed(setting.split(".")):
                wrong = {key: wrong}
            with pytest.raises(InputError, match=f"^{setting}: "):
                check_bounds(kind, wrong)


CLASSIFY = "fit --model ClassificationTask --data ImageDataModule --trainer.logger=false"
TRAIN = "fit --model MinimaxTask --data LatentDataModule --data.cache=nowhere --trainer.logger=false"
GENERATE = "predict --model GenerationTask --data RequestDataModule --model.dit=nowhere"
SCORE = "predict --model ScoringTask --data ImageDataModule"
ENCODE = "predict --model EncodingTask --data ImageDataModule"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"{CLASSIFY} --model.width=0", "width: found 0"),
        (f"{CLASSIFY} --model.network=nope", "network 'nope'"),
        (f"{CLASSIFY} --model.optimizer.lr=1{'0' * 400}", "lr"),
        (f"{CLASSIFY} --trainer.max_epochs=many", "max_epochs"),
        (f"{CLASSIFY} --trainer.precision=7", "precision"),
        (f"{CLASSIFY} --trainer.devices=0", "devices"),
        (f"{CLASSIFY} --trainer.strategy=nope", "nope"),
        (f"{CLASSIFY} --trainer.accelerator=nope", "nope"),
        (f"{CLASSIFY} --trainer.callbacks=Nope", "Nope"),
        (
            f"{CLASSIFY} --trainer.callbacks=ResumeCheckpoint --trainer.callbacks.every_n_steps=-1",
            "every_n_steps: found",
        ),
        (f"{CLASSIFY} --seed_everything=-1", "seed_everything: found -1"),
        (f"{CLASSIFY} --ckpt_path=nowhere.ckpt", "nowhere.ckpt"),
        (f"{CLASSIFY} --nonsense", "nonsense"),
        (f"{CLASSIFY} --data.train=/no --data.val=/no", "/no: found no such folder"),
        ("fit --model Nope", "Nope"),
        (f"{TRAIN} --model.size.name=Z", "DiT 'Z'"),
        (TRAIN, "nowhere: found no finished latent cache"),
        (GENERATE, "DiT 'nowhere'"),
        (f"{GENERATE} --model.steps=0", "steps: found 0"),
        (f"{SCORE} --model.estimator=nope", "estimator: found 'nope'"),
        (f"{SCORE} --model.estimator=[]", "estimator: found none"),
        (f"{ENCODE} --model.codec=/nowhere", "codec '/nowhere'"),
        (f"{ENCODE} --data.predict=/no", "/no: found no such folder"),
        ("predict --config /", "config '/'"),
        ("select", "pool"),
        ("select --output=x --pool=/no --ipc=0", "ipc: found 0"),
        ("select --output=x --pool=/no --ipc=1", "/no: found no such folder"),
        ("select --output=x --pool=/no --ipc=1 --distribution=[1,.nan]", "distribution"),
        ("report", "runs"),
        ("report /no", "/no: found no such folder"),
        ("report /no --tables=[99]", "tables: found [99]"),
        ("prepare --data=digits --output=x --image_size=-1", "image_size: found -1"),
        ("prepare --data=/no --output=x", "/no: found no such folder"),
        ("prepare --data=/dev/null --output=x", "/dev/null"),
        ("run", "experiment"),
        ("run quickstart --set", "--set"),
        ("run /", "config '/'"),
        ("doctor", "experiment"),
        ("doctor quickstart --nonsense", "nonsense"),
    ],
)
def test_every_command_refuses_in_one_line(command: str, says: str, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        assert says in answer(*command.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [b"\xff\xfe: 1", b"[" * 100_000, b"a: [", b"3"], ids=["bytes", "deep", "open", "no keys"]
)
def test_a_file_that_is_no_mapping_in_yaml_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert "mine.yaml" in answer("run", str(tmp_path / "mine.yaml"))


# ---- trees of images ---------------------------------------------------------------------------------------------


def picture(mode: str = "RGB", size: int = 8, colour: float | tuple[int, ...] = 0) -> Image.Image:
    return Image.new(mode, (size, size), colour)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of two images, beside a file that is nobody's business."""
    for label in CLASSES:
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(2):
            picture(colour=100 * index).save(tmp_path / "images" / label / f"{index}.png")
    (tmp_path / "beside.txt").write_text("leave me alone")
    return tmp_path / "images"


def write_every_kind(folder: Path) -> None:
    """Images of all kinds and names that a camera, an artist or a script may leave."""
    frames = [picture("RGB", 9, (level, 0, 0)) for level in (50, 150)]
    for suffix in ("gif", "webp"):
        frames[0].save(folder / f"moving {suffix}.{suffix}", save_all=True, append_images=frames[1:])
    transparent = picture("P", 7, 3)
    transparent.putpalette(list(range(256)) * 3)
    transparent.save(folder / "palette.png", transparency=3)
    picture("I;16", 8, 40_000).save(folder / "sixteen.png")
    picture("L", 1, 7).save(folder / "pixel.png")
    picture("1", 30, 1).save(folder / "bits.png")
    picture("LA", 8, (7, 8)).save(folder / "grey and clear.png")
    picture("RGBA", 8, (1, 2, 3, 4)).save(folder / "clear.png")
    picture("CMYK", 8, (1, 2, 3, 4)).save(folder / "print.jpg")
    for name in ("-rf", " ", "line\nbreak", "été 犬", "x" * 251, '"quoted"', "$(touch x)", "a;b"):
        picture(colour=50).save(folder / f"{name}.png")
    (folder / "link.png").symlink_to("pixel.png")
    (folder / "folder.png").mkdir()
    picture().save(folder / "folder.png" / "inner.png")


def test_every_kind_of_image_and_name_is_prepared_scored_and_selected(tree: Path, tmp_path: Path) -> None:
    for label in CLASSES:
        write_every_kind(tree / label)
    count = sum(path.is_file() for path in tree.rglob("*"))
    output = tmp_path / "out"
    with nothing_else_written(tmp_path, output):
        assert run("prepare", f"--data={tree}", f"--output={output / 'data'}", "--image_size=8") == (0, "")
        save_classifier(ESTIMATOR.build(), ESTIMATOR, output / "estimator")
        writer = {"class_path": "ScoreWriter", "init_args": {"output": str(output / "scores")}}
        arguments = ("--model=ScoringTask", f"--model.estimator={output / 'estimator'}", "--data=ImageDataModule")
        trainer = ("--trainer.logger=false", "--trainer.accelerator=cpu", f"--trainer.callbacks=[{json.dumps(writer)}]")
        assert run("predict", *arguments, f"--data.predict={tree}", *trainer) == (0, "")
        scored = (f"--pool={tree}", f"--pool_scores={output / 'scores'}", "--ipc=15")
        assert run("select", *scored, f"--output={output / 'selected'}") == (0, "")
    assert len(read_manifest(output / "scores")) == count
    assert len(read_manifest(output / "selected")) == 15 * len(CLASSES)
    prepared = [record for split in ("train", "val") for record in read_manifest(output / "data" / split)]
    assert len(prepared) == count
    assert (tmp_path / "beside.txt").read_text() == "leave me alone"


def header_of_a_bomb() -> bytes:
    """A PNG that says it has 100,000 x 100,000 pixels."""
    content = io.BytesIO()
    picture().save(content, "PNG")
    whole = bytearray(content.getvalue())
    whole[16:24] = struct.pack(">II", 100_000, 100_000)
    whole[29:33] = struct.pack(">I", binascii.crc32(whole[12:29]))
    return bytes(whole)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing in it": (lambda path: path.write_bytes(b""), "no readable image"),
    "text": (lambda path: path.write_text("an image"), "no readable image"),
    "its header alone": (lambda path: path.write_bytes((path.parent / "1.png").read_bytes()[:40]), "no readable image"),
    "more pixels than memory": (lambda path: path.write_bytes(header_of_a_bomb()), "no readable image"),
    "numbers without a range": (lambda path: picture("F").save(path, "TIFF"), "images with more than 8 bits"),
    "a pipe": (os.mkfifo, "a pipe"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "a link to"),
    "a link to itself": (lambda path: path.symlink_to(path), "a link to"),
    "a link in circles": (lambda path: path.symlink_to(path.parents[1]), "a link to"),
    "a link out of the tree": (lambda path: path.symlink_to(path.parents[2] / "beside.txt"), "a link to"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_named_whoever_reads_it(kind: str, tree: Path, tmp_path: Path) -> None:
    make, says = BROKEN[kind]
    path = tree / "cat" / "0\n.png"
    make(path)
    output = tmp_path / "out"
    with nothing_else_written(tmp_path, output):
        for command in (
            ("prepare", f"--data={tree}", "--image_size=8"),
            ("select", f"--pool={tree}", "--ipc=2", "--method=kcenter"),
        ):
            said = answer(*command, f"--output={output}")
            assert says in said
            assert "cat/0\\n.png" in said
    assert len(list(output.rglob("metadata.jsonl"))) < 2  # training and validation images are not both there


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ([], "no class folders with images"),
        (["cat/0.png", "cat/1.png"], "one class (cat)"),
        (["cat/0.png", "dog/0.png"], "one image only of 2 classes"),
        (["cat/0.png", "cat/1.png", "dog/0.png"], "one image only of 1 class (dog)"),
    ],
)
def test_a_tree_with_too_little_in_it_says_what_is_missing(left: Sequence[str], says: str, tree: Path) -> None:
    for path in list(tree.rglob("*.png")):
        if str(path.relative_to(tree)) not in left:
            path.unlink()
    for label in CLASSES:
        with contextlib.suppress(OSError):
            (tree / label).rmdir()
    assert says in answer("prepare", f"--data={tree}", f"--output={tree.parent / 'out'}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_that_may_not_be_read_is_named(tree: Path) -> None:
    (tree / "cat" / "0.png").chmod(0)
    assert "cat/0.png" in answer("prepare", f"--data={tree}", f"--output={tree.parent / 'out'}", "--image_size=8")


def test_an_output_below_a_file_is_refused_in_words(tree: Path) -> None:
    beside = tree.parent / "beside.txt"
    assert "beside.txt" in answer("prepare", f"--data={tree}", f"--output={beside / 'out'}", "--image_size=8")
    assert "beside.txt" in answer(
        "select", f"--pool={tree}", "--ipc=1", "--method=random", f"--output={beside / 'out'}"
    )


def test_a_class_with_one_image_cannot_lose_it_to_a_fold(tree: Path, tmp_path: Path) -> None:
    (tree / "cat" / "1.png").unlink()
    data = (
        "--data=ImageDataModule",
        f"--data.train={tree}",
        f"--data.val={tree}",
        "--data.cross_fitting.folds=5",
        "--data.cross_fitting.fold=0",
    )
    task = ("--model=ClassificationTask", "--model.network=convnet1", "--trainer.max_steps=1")
    trainer = (f"--trainer.default_root_dir={tmp_path / 'out'}", "--trainer.logger=false", "--trainer.accelerator=cpu")
    assert "one image only of cat" in answer("fit", *task, *data, *trainer)


# ---- manifests and cards -----------------------------------------------------------------------------------------

LINE = {"label": "cat", "difficulty": 0.5, "estimator": "net"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (json.dumps({"file_name": "../beside.txt", **LINE}).encode(), "leaves the folder"),
        (json.dumps({"file_name": "/etc/passwd", **LINE}).encode(), "leaves the folder"),
        (json.dumps({"file_name": "cat/0.png", **LINE, "label": "../cat"}).encode(), "no name of a class folder"),
        (json.dumps({"file_name": "cat/0.png", **LINE, "label": "c" * 300}).encode(), "no name of a class folder"),
        (json.dumps({"file_name": "x" * 10_000_000, **LINE}).encode(), "file_name 'xxx"),
        (json.dumps({"file_name": ["cat/0.png"] * 1_000_000, **LINE}).encode(), "file_name ["),
        (b'{"file_name": "cat/0.png", "label": "cat", "difficulty": 1e400}', "difficulty inf"),
        (b'{"file_name": "cat/0.png", "label": "cat", "difficulty": -1e-320}', "difficulty -1e-320"),
        (b'{"file_name": "cat/0.png", "label": "cat", "seed": 1' + b"0" * 5000 + b"}", "5001"),
        (b'{"file_name": "cat/0.png", "label": "cat", "note": NaN}', "note: nan instead of a finite number"),
        (b'{"file_name": "cat/0.png", "label": "cat", "note": [{"deep": 1e999}]}', "note[0].deep: inf instead of"),
        (b'{"file_name": "cat/\xff.png", "label": "cat"}', "not UTF-8"),
        (b'\xef\xbb\xbf{"file_name": "cat/0.png", "label": "cat"}', "truncated or invalid"),
    ],
    ids=range(13),
)
def test_a_line_of_a_pool_that_cannot_be_used_is_one_line_of_error(line: bytes, says: str, tree: Path) -> None:
    (tree / "metadata.jsonl").write_bytes(line + b"\n")
    output = tree.parent / "out"
    with nothing_else_written(tree.parent, output):
        said = answer("select", f"--pool={tree}", "--ipc=1", f"--output={output}")
        assert says in said
        assert "line 1" in said
    assert not output.exists()


@pytest.mark.parametrize(
    "card",
    [{"settings": 3}, {"licences": [{}]}, {"licences": "CC0"}, {"labels": []}, {"hashes": "x"}, {"scoring": [1]}],
    ids=str,
)
def test_a_card_of_other_shapes_is_refused(card: dict[str, Any], tree: Path) -> None:
    write_manifest(tree, [ImageRecord(f"{label}/{i}.png", label) for label in CLASSES for i in range(2)])
    (tree / "dataset.json").write_text(json.dumps(card))
    output = tree.parent / "out"
    assert "dataset.json" in answer("prepare", f"--data={tree}", f"--output={output}")
    assert "dataset.json" in answer("select", f"--pool={tree}", "--ipc=1", "--method=random", f"--output={output}")


# ---- weights -----------------------------------------------------------------------------------------------------

ESTIMATOR = ClassifierConfig("convnet1", CLASSES, 8, 3, (0.5,) * 3, (0.2,) * 3, width=4)


class Payload:
    """What a pickle of it would run: the making of a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.sentinel), "w")


def header(content: object, body: bytes = b"1234") -> bytes:
    """A safetensors file with a header of one's own."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(**changes: object) -> bytes:
    return header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}})


FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "nothing in it": lambda path, _: path.write_bytes(b""),
    "text": lambda path, _: path.write_text("weights"),
    "a pickle that runs code": lambda path, sentinel: path.write_bytes(pickle.dumps(Payload(sentinel))),
    "a checkpoint that runs code": lambda path, sentinel: torch.save({"model": Payload(sentinel)}, path),
    "a folder": lambda path, _: path.mkdir(),
    "a link to nothing": lambda path, _: path.symlink_to("nowhere"),
    "a header as long as the world": lambda path, _: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "a header of more than there is": lambda path, _: path.write_bytes(tensor(shape=[9], data_offsets=[0, 36])),
    "a header of another shape": lambda path, _: path.write_bytes(tensor(shape=[7])),
    "a header with a shape below zero": lambda path, _: path.write_bytes(tensor(shape=[-1])),
    "a header with an unknown type": lambda path, _: path.write_bytes(tensor(dtype="Z9")),
    "a header that is no text": lambda path, _: path.write_bytes(header(b"\xff\xfe")),
    "no tensors": lambda path, _: path.write_bytes(header({}, b"")),
    "tensors of something else": lambda path, _: save_file({"x": torch.zeros(3)}, path),
    "tensors of other shapes": lambda path, _: save_file({"x_embedder.proj.weight": torch.zeros(3)}, path),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each thing that weights are read from."""
    folder = tmp_path_factory.mktemp("models")
    config = DiTConfig(input_size=4, num_classes=2, in_channels=1, hidden_size=16, depth=1, num_heads=2)
    model = DiT(config, CLASSES)
    initialise(model, 0)
    save_dit(model, folder / "dit")
    export_diffusers(model, folder / "diffusers")
    save_classifier(ESTIMATOR.build(), ESTIMATOR, folder / "estimator")
    cache_settings = CacheSettings("pixels", "none", (1, 4, 4), False, 1, "float32")
    (folder / "latents").mkdir()
    key = cache_settings.key("images")
    write_shard(folder / "latents", key, torch.arange(4), torch.zeros(4, 1, 1, 4, 4), None)
    records = [ImageRecord(f"{label}/{i}.png", label) for label in CLASSES for i in range(2)]
    finish_cache(folder / "latents", cache_settings, records, "images")
    return folder


READERS: dict[str, Callable[[Path], object]] = {
    "dit/model.safetensors": lambda folder: load_dit(str(folder / "dit")),
    "dit/config.json": lambda folder: load_dit(str(folder / "dit")),
    "diffusers/transformer/diffusion_pytorch_model.safetensors": lambda folder: load_dit(str(folder / "diffusers")),
    "diffusers/transformer/diffusion_pytorch_model.bin": lambda folder: load_dit(str(folder / "diffusers")),
    "diffusers/transformer/config.json": lambda folder: load_dit(str(folder / "diffusers")),
    "diffusers/dgs.json": lambda folder: load_dit(str(folder / "diffusers")),
    "weights.pt": lambda folder: load_dit(str(folder / "weights.pt")),
    "weights.safetensors": lambda folder: load_dit(str(folder / "weights.safetensors")),
    "estimator/model.safetensors": lambda folder: load_estimator(str(folder / "estimator")),
    "estimator/config.json": lambda folder: load_estimator(str(folder / "estimator")),
    "pretrained.pth": lambda folder: ESTIMATOR.build(str(folder / "pretrained.pth")),
    "latents/00000000.safetensors": lambda folder: LatentCache(folder / "latents"),
    "latents/latents.json": lambda folder: LatentCache(folder / "latents"),
    "centers.safetensors": lambda folder: read_centers(folder / "centers.safetensors", CLASSES, (1, 4, 4)),
    "last.ckpt": lambda folder: check_readable(folder / "last.ckpt"),
}


@pytest.mark.parametrize("place", [place for place in READERS if place != "diffusers/dgs.json"])
def test_a_file_that_is_no_weights_is_refused_and_nothing_in_it_is_run(
    place: str, models: Path, tmp_path: Path
) -> None:
    sentinel = tmp_path / "sentinel"
    for number, (fault, make) in enumerate(FAULTS.items()):
        folder = tmp_path / str(number)
        shutil.copytree(models, folder)
        (folder / place).unlink(missing_ok=True)
        if place.endswith(".bin"):
            (folder / place).with_suffix(".safetensors").unlink()
        make(folder / place, sentinel)
        with pytest.raises(InputError) as refused:
            READERS[place](folder)
        check_line(f"dgs: {refused.value}\n")
        assert not sentinel.exists(), fault


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("dit/config.json", {"config": {"colours": 3}}),
        ("dit/config.json", {"config": [4]}),
        ("dit/config.json", {"config": {"input_size": 4, "num_classes": 2, "patch_size": 0}}),
        ("dit/config.json", {"labels": 5}),
        ("dit/config.json", {"labels": [1, 2]}),
        ("dit/config.json", {"base": "x"}),
        ("dit/config.json", {"base": {"source": 3}}),
        ("dit/config.json", {"format": "dgs-lightning/dit-9"}),
        ("diffusers/transformer/config.json", {"num_layers": None}),
        ("diffusers/transformer/config.json", {"num_layers": "one"}),
        ("diffusers/transformer/config.json", {"patch_size": 0}),
        ("diffusers/transformer/config.json", {"_class_name": "UNet2DModel"}),
        ("diffusers/dgs.json", {"labels": None}),
        ("estimator/config.json", {"labels": "cat"}),
        ("estimator/config.json", {"image_size": "large"}),
        ("estimator/config.json", {"width": -1}),
        ("estimator/config.json", {"network": 7}),
        ("estimator/config.json", {"mean": [0.5]}),
        ("latents/latents.json", {"settings": {}}),
        ("latents/latents.json", {"settings": []}),
        ("latents/latents.json", {"key": "another"}),
        ("latents/latents.json", {"format": "dgs-lightning/latents-9"}),
    ],
    ids=str,
)
def test_settings_of_another_version_are_refused(
    place: str, change: dict[str, object], models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    path = folder / place
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as refused:
        READERS[place](folder)
    check_line(f"dgs: {refused.value}\n")


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.tensor([0, 1, 2, 99])},
        {"images": torch.tensor([0, 1, 2, -1])},
        {"images": torch.zeros(4)},
        {"images": torch.zeros(2, 2, dtype=torch.long)},
        {"means": torch.zeros(4, 1, 1, 5, 5)},
        {"means": torch.zeros(3, 1, 1, 4, 4)},
    ],
    ids=range(6),
)
def test_latents_of_another_form_are_refused(change: dict[str, torch.Tensor], models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "latents", tmp_path / "latents")
    shard = {"images": torch.arange(4), "means": torch.zeros(4, 1, 1, 4, 4)} | change
    key = json.loads((tmp_path / "latents" / "latents.json").read_text())["key"]
    save_file(shard, tmp_path / "latents" / "00000000.safetensors", {"key": key})
    with pytest.raises(InputError, match=r"00000000\.safetensors"):
        LatentCache(tmp_path / "latents")


def checkpoint(**changes: object) -> dict[str, object]:
    return {key: {} for key in KEYS} | {"pytorch-lightning_version": "2.5.0"} | changes


@pytest.mark.parametrize(
    "content",
    [{}, [1], {"state_dict": {}}, checkpoint(), checkpoint(state_dict={"x": torch.zeros(3)})],
    ids=range(5),
)
def test_a_checkpoint_of_something_else_is_not_resumed(content: object, tree: Path, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    data = ("--data=ImageDataModule", f"--data.train={tree}", f"--data.val={tree}")
    task = ("--model=ClassificationTask", "--model.network=convnet1", "--model.width=4", "--trainer.max_steps=1")
    trainer = (f"--trainer.default_root_dir={tmp_path / 'out'}", "--trainer.logger=false", "--trainer.accelerator=cpu")
    answer("fit", *task, *data, *trainer, f"--ckpt_path={tmp_path / 'other.ckpt'}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "--model=GenerationTask", "--data=RequestDataModule", "--model.dit={}"),
        ("predict", "--model=ScoringTask", "--data=ImageDataModule", "--model.weights={}"),
        ("predict", "--model=EncodingTask", "--data=ImageDataModule", "--model.codec={}"),
        ("fit", "--model=ClassificationTask", "--data=ImageDataModule", "--ckpt_path={}"),
        ("fit", "--model=ClassificationTask", "--data=ImageDataModule", "--weights_only=false", "--ckpt_path={}"),
    ],
    ids=lambda arguments: arguments[-1],
)
def test_no_command_runs_a_pickle(arguments: Sequence[str], tmp_path: Path) -> None:
    torch.save({"model": Payload(tmp_path / "sentinel")}, tmp_path / "trap.pt")
    said = answer(*(argument.format(tmp_path / "trap.pt") for argument in arguments))
    assert "trap.pt" in said
    assert not (tmp_path / "sentinel").exists()

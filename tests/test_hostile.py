"""Every reader takes what it declares, or refuses it in an InputError that names the file and the place."""

import contextlib
import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dgs_lightning.callbacks.score_writer import Batch
from dgs_lightning.commands.differences import differences_from_paper
from dgs_lightning.configs import load_config, load_yaml
from dgs_lightning.data.cards import CardSettings, read_card
from dgs_lightning.data.folders import read_scores, read_set
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.data.records import MARK, read_manifest
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.data.writing import is_intact
from dgs_lightning.documents.files import LINE, read_json
from dgs_lightning.documents.texts import JSON_SIZE, inside
from dgs_lightning.errors import InputError
from dgs_lightning.examples import write_classifier, write_dit, write_latents
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.files import write_json
from dgs_lightning.models.classifier import load_classifier
from dgs_lightning.models.codec import keeps_variances, latent_shape
from dgs_lightning.models.dit.formats import export_diffusers, load_dit
from dgs_lightning.reporting.album import _stages
from dgs_lightning.reporting.folder import RunFolder, read_run
from dgs_lightning.reporting.overview import overview
from dgs_lightning.reporting.summary import summarize
from dgs_lightning.runs.lock import _holder
from dgs_lightning.runs.records import Records
from dgs_lightning.runs.results import changes, read_results

HOSTILE = Path(__file__).parent / "hostile"
SET, TRAINING = "distilled/dit_dgs-ipc1", "evaluation/dit_dgs-ipc1/convnet3/seed0"
HISTOGRAM = {"counts": [1, 0], "mean": 0.25}
RAW = {"original": HISTOGRAM, "pool": HISTOGRAM, "distilled": HISTOGRAM, "distance": 0.1}
DRAW = {"target": [1, 0], **RAW}
CONTENTS: dict[str, Any] = {
    "set/dataset.json": {
        "name": "digits/train",
        "kind": "original",
        "labels": {"cat": "a cat", "dog": None},
        "images": 1,
        "settings": {"image_size": 8, "channels": 1, "requests": {"batch_size": 4}, "other": [1, {"x": 0.5}]},
        "versions": {"torch": "2.11"},
        "hashes": {"images": "abc"},
        "provenance": ["elsewhere", {"role": "pool", "card": {"name": "pool"}}],
        "licences": ["CC0"],
        "scoring": {"key": "abc", "cross_fit": True},
    },
    "set/settings.json": {"requests": {"batch_size": None, "seed": 2**63}, "precision": "32-true"},
    "set/.lock.holder": {"host": "node7", "process": 5},
    "run/stages/data.json": {
        "name": "data",
        "command": "prepare",
        "key": "abc",
        "status": "done",
        "seconds": 1.5,
        "device": None,
        "version": "0.2.0",
        "versions": {"torch": "2.11"},
    },
    f"run/{TRAINING}/result.json": {
        "accuracy_last": 0.5,
        "accuracy_best": 1,
        "subsets": {"easy": {"accuracy_last": 0, "accuracy_best": 0.5}},
    },
    f"run/{SET}/selection.json": {
        "intervals": 2,
        "smoothing": {"epsilon": 0.1},
        "classes": {"cat": {"raw": RAW, "unsmoothed": DRAW, "smoothed": DRAW}, "dog": {}},
    },
    "run/experiment.yaml": {
        "name": "mine",
        "title": "Mine",
        "methods": ["dit_dgs", "flat"],
        "networks": ["convnet3"],
        "ipc": [1],
        "seed": 0,
        "draws": 1,
        "repeats": 1,
        "variants": {"flat": {"method": "dit_dgs", "select": {"distribution": "ground"}, "pool_multiple": 2}},
        "classes": "imagewoof",
        "data": "digits",
        "codec": "pixels",
        "dit": None,
        "image_size": 8,
        "guided": "dit",
        "select": {"intervals": 2},
        "mgd3": None,
    },
    f"run/stages/{TRAINING}.yaml": {
        "model": {"class_path": "ClassificationTask", "init_args": {"width": 4}},
        "data": {"init_args": {"image_size": 8, "predict": "nowhere"}},
        "trainer": {
            "max_epochs": 1,
            "callbacks": [{"class_path": "PublishedLength", "init_args": {"steps": 3}}, "Timer"],
        },
    },
    "mine.yaml": {
        "base": "quickstart",
        "title": "Mine",
        "methods": ["dit"],
        "evaluate": {"trainer": {"max_steps": 1}},
        "variants": {"easy": {"method": "dit", "pool_multiple": 2}},
    },
}


DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]


class Reader(NamedTuple):
    """A file, and what reads it."""

    path: str
    read: Callable[[Path], object]  # of the folder with all files
    typed: bool = True  # whether an error names the place of a wrong value


def report_of(folder: Path) -> object:
    """What a report takes from a run before it draws."""
    run = read_run(folder / "run")
    accounts = [account for name in run.distilled for account in run.selection(name).get("classes", {}).values()]
    stages = [_stages(account[when]) for account in accounts for when in account if when.endswith("smoothed")]
    summary = summarize(run)
    texts = overview(run, summary)
    return texts, run.intervals, differences_from_paper(run), run.title, run.dataset, stages, rows(run)


def rows(run: RunFolder) -> object:
    return [(run.show(row, 1), run.setting(row, 1, "convnet3")) for row in run.variants]


def status_of(folder: Path) -> object:
    records = Records(folder / "run")
    return records.status("data", "abc"), records.damage("data", "abc"), records.version_changes("data")


READERS = {
    "card": Reader("set/dataset.json", lambda f: (read_card(f / "set"), is_intact(f / "set"), read_scores(f / "set"))),
    "unfinished images": Reader(
        "set/settings.json", lambda f: read_json(f / "set" / "settings.json", CardSettings, "settings")
    ),
    "record": Reader("run/stages/data.json", lambda f: (read_run(f / "run").costs, status_of(f))),
    "result": Reader(f"run/{TRAINING}/result.json", report_of),
    "selection": Reader(f"run/{SET}/selection.json", report_of),
    "settings of a run": Reader("run/experiment.yaml", report_of),
    "settings of a stage": Reader(f"run/stages/{TRAINING}.yaml", report_of),
    "experiment": Reader("mine.yaml", lambda f: load_experiment(str(f / "mine.yaml"), []), typed=False),
    "latents": Reader("latents/latents.json", lambda f: LatentCache(f / "latents"), typed=False),
    "dit": Reader("dit/config.json", lambda f: load_dit(str(f / "dit")), typed=False),
    "diffusers": Reader("diffusers/transformer/config.json", lambda f: load_dit(str(f / "diffusers")), typed=False),
    "labels of a dit": Reader("diffusers/dgs.json", lambda f: load_dit(str(f / "diffusers")), typed=False),
    "classifier": Reader("classifier/config.json", lambda f: load_classifier(f / "classifier"), typed=False),
    "holder": Reader("set/.lock.holder", lambda f: _holder(f / "set" / ".lock.holder")),
    "autoencoder": Reader(
        "autoencoder/config.json",
        lambda f: (latent_shape(str(f / "autoencoder"), 64, 3), keeps_variances(str(f / "autoencoder"))),
    ),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of each kind, all valid. A test that changes one restores it."""
    folder = tmp_path_factory.mktemp("valid")
    for path, content in CONTENTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))  # JSON is YAML, too
    (folder / "set" / "metadata.jsonl").write_text('{"file_name": "cat/0.png", "label": "cat"}\n')
    (folder / "run" / SET / "metadata.jsonl").write_text('{"file_name": "cat/0.png", "label": "cat"}\n')
    write_latents(str(folder / "latents"))
    write_dit(str(folder / "dit"))
    write_classifier(str(folder / "classifier"))
    export_diffusers(load_dit(str(folder / "dit")), folder / "diffusers")
    (folder / "autoencoder").mkdir()
    autoencoder = {"_class_name": "AutoencoderKL", "block_out_channels": [4, 8], "latent_channels": 4}
    (folder / "autoencoder" / "config.json").write_text(json.dumps(autoencoder))
    return folder


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Another content of a file, for the time of the block."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def refusal(read: Callable[[Path], object], folder: Path) -> str | None:
    """What a reader says of a file that it refuses; None if it reads it."""
    said = None
    try:
        read(folder)
    except InputError as error:
        said = str(error)
    assert said is None or (len(said) < 3500 and said.isprintable()), said
    return said


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(name: str, valid: Path) -> None:
    assert refusal(READERS[name].read, valid) is None


@pytest.mark.parametrize("name", READERS)
def test_a_hostile_file_in_place_of_any_other_is_read_or_refused_by_name(name: str, valid: Path) -> None:
    path, read, _ = READERS[name]
    for hostile in sorted(HOSTILE.glob(f"*{Path(path).suffix.replace('.holder', '.json')}")):
        with replaced(valid / path, hostile.read_bytes()):
            said = refusal(read, valid)
        assert said is None or Path(path).name in said, (hostile.name, said)


@pytest.mark.parametrize("hostile", sorted(HOSTILE.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_hostile_manifest_is_refused_with_the_number_of_the_line(hostile: Path, tmp_path: Path) -> None:
    shutil.copy(hostile, tmp_path / "metadata.jsonl")
    with pytest.raises(InputError, match=rf"metadata\.jsonl, line {2 if hostile.stem == 'twice' else 1}: found"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("hostile", sorted(HOSTILE.glob("*.results")), ids=lambda path: path.stem)
def test_a_hostile_list_of_results_is_refused_with_the_number_of_the_line(hostile: Path) -> None:
    if hostile.stem == "line-separators":
        assert list(read_results(hostile) or {}) == ["data/a\u2028b\u0085c.png"]
        return
    with pytest.raises(InputError, match=rf"{hostile.name}, line 1: found"):
        read_results(hostile)


@pytest.mark.parametrize(
    "part", [[1], {"a.png": 3}, {"a.png": "\ud800"}, "x", None, [0, [[2, "cat", 0.6]]], DEEP[0][0]], ids=range(7)
)
def test_a_line_of_a_journal_with_another_content_is_not_used(part: object, tmp_path: Path) -> None:
    folder = Unfinished(tmp_path, "images")
    folder.begin("key", [{"b.png": "abc"}, part, [1, [[0.5, "cat", 0.6]]]])
    assert folder.hashes() == {"b.png": "abc"}
    assert list(folder.noted(Batch)) == [[1, [[0.5, "cat", 0.6]]]]


@pytest.mark.parametrize(
    "mark", [{"kind": [1]}, {"kind": "images", "key": [1]}, [1], {"kind": "images", "key": {"requests": 3}}]
)
def test_a_mark_of_another_shape_is_refused(mark: object, tmp_path: Path) -> None:
    write_json(tmp_path / MARK, mark)
    with pytest.raises(InputError, match=r"mark\.json"):
        Unfinished(tmp_path, "images").begun()
    with pytest.raises(InputError, match=r"mark\.json"):
        read_set(tmp_path)


def test_what_a_stage_left_is_never_outside_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a" / "run" / "stages").mkdir(parents=True)
    shutil.copy(HOSTILE / "out-of-the-run.results", tmp_path / "a" / "run" / "stages" / "data.results")
    with pytest.raises(InputError, match=r"data\.results"):
        changes(tmp_path / "a" / "run", Records(tmp_path / "a" / "run").results("data"))


# ---- bombs: made here, not stored --------------------------------------------------------------------------------


def bomb(levels: int, line: str) -> str:
    """YAML in which each line has the one before ten times."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(line.format(level, ", ".join([f"*a{level - 1}"] * 10)))
    return "\n".join(lines)


def most_memory() -> int:
    """Most memory of this process in KiB."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


@pytest.mark.parametrize(
    "text",
    [
        bomb(9, "a{0}: &a{0} [{1}]"),
        "a0: &a0 {x: 1}\n" + "\n".join(bomb(9, "a{0}: &a{0} {{<<: [{1}]}}").split("\n")[1:]),
        "title: " + "[" * 100_000,
        "title: " + "{a: " * 100_000,
        "- " * 100_000,
    ],
    ids=["aliases", "merge keys", "brackets", "braces", "dashes"],
)
def test_a_yaml_bomb_is_refused_without_much_memory(text: str, valid: Path) -> None:
    with contextlib.suppress(OSError):  # where the system has it, the most memory is counted from here on
        Path("/proc/self/clear_refs").write_text("5")
    before, spent = most_memory(), time.process_time()
    for name in ("settings of a run", "experiment"):
        path, read, _ = READERS[name]
        with replaced(valid / path, text.encode()):
            said = refusal(read, valid)
        assert said is not None
        assert Path(path).name in said
    assert most_memory() - before < 500_000
    assert time.process_time() - spent < 60  # of nine minutes and more without limits


def test_a_bomb_in_a_setting_is_refused(tmp_path: Path) -> None:
    for text in (bomb(9, "a{0}: &a{0} [{1}]"), "[" * 5000, "{<<: " * 5000):
        with pytest.raises(InputError, match=r"--set select=.*: found "):
            load_experiment("quickstart", [f"select={text}"])
    with pytest.raises(InputError, match="lists or mappings in each other"):
        load_experiment("quickstart", [f"{'a.' * 5000}a=1"])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"base": "quickstart", "latents": bomb(9, "a{0}: &a{0} [{1}]")}))
    with pytest.raises(InputError, match=r"mine\.yaml"):  # a text, no mapping
        load_experiment(str(tmp_path / "mine.yaml"), [])


def test_a_file_or_line_of_more_than_the_largest_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "dataset.json").open("wb") as file:
        file.truncate(JSON_SIZE + 1)
    with pytest.raises(InputError, match=r"dataset\.json: found a broken file \(more than 100 MB\)"):
        read_card(tmp_path)
    (tmp_path / "mine.yaml").write_text("a: " + "x" * 1_000_001)
    with pytest.raises(InputError, match=r"mine\.yaml: found a broken file \(more than 1 MB\)"):
        load_config(str(tmp_path / "mine.yaml"))
    (tmp_path / "metadata.jsonl").write_text(" " * (LINE + 1))
    with pytest.raises(InputError, match=r"line 1: found .*more than 16,777,216 characters"):
        read_manifest(tmp_path)


def test_a_model_does_not_start_from_itself(tmp_path: Path) -> None:
    for name, source in (("one", "../two"), ("two", "../one")):
        write_dit(str(tmp_path / name))
        config = json.loads((tmp_path / name / "config.json").read_text())
        config["base"] = {"source": source, "hash": "abc"}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: base\.source: found \.\./"):
        load_dit(str(tmp_path / "one"))


# ---- fuzz: one value of a valid file is replaced -------------------------------------------------------------------

JUNK = [
    *(None, True, -1, 0, 1, 2, 2**63, 2**70, 10**400, 0.5, -0.5, 1e300, float("nan"), float("inf")),
    *("", "x", "..", "a/b", "/", "\0", "\ud800", "\x1b[31m", "$x_{$", "[1", "x" * 10_000, "1e400"),
    *([], [None], [[]], DEEP, ["x"], [1e300]),
    *({}, {"": None}, {"a": {}}, {"\ud800": 1}, {"class_path": 3}, {"init_args": []}),
]


def places(value: object, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every value in a JSON value, as keys and positions."""
    if keys:
        yield keys
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*keys, key))


def dotted(keys: tuple[str | int, ...]) -> str:
    place = ""
    for key in keys:
        place = f"{place}[{key}]" if isinstance(key, int) else inside(place, key)
    return place


@pytest.mark.parametrize("name", READERS)
def test_a_value_of_another_type_or_size_is_read_or_its_place_is_named(name: str, valid: Path) -> None:
    path, read, typed = READERS[name]
    content = json.loads((valid / path).read_text())
    choices = sorted(places(content), key=str)

    @given(st.sampled_from(choices), st.sampled_from(JUNK))
    @hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
    def check(keys: tuple[str | int, ...], junk: object) -> None:
        changed = copy.deepcopy(content)
        parent = changed
        for key in keys[:-1]:
            parent = parent[key]
        parent[keys[-1]] = junk
        text = yaml.safe_dump(changed) if path.endswith(".yaml") else json.dumps(changed)
        with replaced(valid / path, text.encode()):
            said = refusal(read, valid)
        if said is not None and typed:
            assert Path(path).name in said, said
            assert dotted(keys[:1]) in said or "yaml: line " in said, said

    check()


def test_a_shard_with_positions_out_of_range_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from dgs_lightning.data.latents import encoded_images

    for number in (-1, 8, 2**62):
        tensors = {"images": torch.tensor([0, number]), "means": torch.zeros(2, 1, 1, 4, 4)}
        save_file(tensors, tmp_path / "00000000.safetensors", {"key": "abc"})
        with pytest.raises(InputError, match=r"00000000\.safetensors: found a broken file \(positions of images"):
            encoded_images(tmp_path, "abc", 8)


def test_a_config_of_other_shapes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trainer: {callbacks: [{init_args: 3}]}")
    with pytest.raises(InputError, match=r"yaml: trainer\.callbacks\[0\]\.init_args: found 3, expected a mapping"):
        load_yaml(tmp_path / "mine.yaml")

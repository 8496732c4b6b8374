import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from PIL import Image

from dgs_lightning.__main__ import main
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.writing import write_set
from dgs_lightning.examples import write_classifier, write_dit
from dgs_lightning.models.dit.formats import load_dit, save_dit

TERMS = "ImageNet terms of access: non-commercial research and education"


class FakeHub:
    """Keeps what it is sent."""

    sent: dict[str, Any]
    public = False
    refuses: Exception | None = None

    def create_repo(self, repo: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        if self.refuses:
            raise self.refuses
        FakeHub.sent |= {"repo": repo, "type": repo_type, "private": private}

    def repo_info(self, repo: str, *, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=not self.public)

    def create_commit(self, repo: str, operations: list[Any], **_: str) -> SimpleNamespace:
        FakeHub.sent["files"] = {
            operation.path_in_repo: operation.path_or_fileobj
            if isinstance(operation.path_or_fileobj, bytes)
            else Path(operation.path_or_fileobj).read_bytes()
            for operation in operations
        }
        return SimpleNamespace(commit_url=f"hub/{repo}/1")


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    FakeHub.sent, FakeHub.public, FakeHub.refuses = {}, False, None
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    return FakeHub


def a_set(run: Path, licence: str = "CC BY 4.0") -> Path:
    """A distilled set in a run that has trained networks on it."""
    folder = run / "distilled" / "dag-ipc1-draw1"
    (run / "pool").mkdir()
    Image.new("L", (4, 4)).save(run / "pool" / "a.png")
    write_set(
        run / "pool", [ImageRecord("a.png", "cat")], folder, {"name": "d", "kind": "distilled", "licences": [licence]}
    )
    (run / "experiment.yaml").write_text("name: tiny\n")
    row = {"accuracy_best_mean": 0.5, "accuracy_best_std": 0.01, "accuracy_last_mean": 0.4, "accuracy_last_std": None}
    rows = [{"method": m, "ipc": 1, "network": "convnet1", "trainings": 3, **row} for m in ("dag", "random")]
    (run / "summary.json").write_text(json.dumps({"rows": rows}))
    (folder / "events.out.tfevents.1").write_text("a log")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_set_is_sent_whole_with_the_results_of_its_run_on_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_set(tmp_path)
    before = contents(folder)
    assert main(["publish", str(folder), "--repo", "me/set", "--private"]) == 0
    assert capsys.readouterr().out == "hub/me/set/1\n"
    files = FakeHub.sent.pop("files")
    assert FakeHub.sent == {"repo": "me/set", "type": "dataset", "private": True}
    card = files.pop("README.md").decode()
    assert "| convnet1 | 50.0 ± 1.0 | 40.0 | 3 |" in card
    assert card.count("| convnet1 |") == 1
    assert str(tmp_path) not in card
    assert contents(folder) == before
    assert files == {
        name: content for name, content in before.items() if name not in ("README.md", "events.out.tfevents.1")
    }


def test_a_dry_run_shows_files_and_card_and_sends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(a_set(tmp_path, TERMS)), "--repo", "me/set", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "dataset me/set: 4 files\nREADME.md\ncat/a.png\ndataset.json\nmetadata.jsonl\n" in shown
    assert "## Results" in shown
    assert f"Its licences need --accept-licence: {TERMS}" in shown
    assert not FakeHub.sent


@pytest.mark.parametrize("licence", [TERMS, "DiT weights: CC BY-NC 4.0"])
def test_a_licence_that_forbids_it_is_told_before_anything_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], licence: str
) -> None:
    folder = a_set(tmp_path, licence)
    assert main(["publish", str(folder), "--repo", "me/set"]) == 2
    assert f"terms that do not let everybody publish it ({licence})" in (said := capsys.readouterr().err)
    assert "add --accept-licence. Nothing was sent" in said
    assert not FakeHub.sent
    assert main(["publish", str(folder), "--repo", "me/set", "--accept-licence"]) == 0
    assert f"- {licence}" in FakeHub.sent["files"]["README.md"].decode()


def test_a_hub_that_refuses_is_told_with_what_to_do_and_the_set_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_set(tmp_path)
    before = contents(folder)
    FakeHub.refuses = ConnectionError("no route to host")
    assert main(["publish", str(folder), "--repo", "me/set"]) == 2
    said = capsys.readouterr().err
    assert "--repo me/set: found the hub did not take it (ConnectionError: no route to host)" in said
    assert "'hf auth login'" in said
    assert contents(folder) == before


def test_a_private_set_never_goes_to_a_public_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FakeHub.public = True
    assert main(["publish", str(a_set(tmp_path)), "--repo", "me/set", "--private"]) == 2
    assert "found a public repository, expected a private or a new one" in capsys.readouterr().err
    assert "files" not in FakeHub.sent


@pytest.mark.parametrize("kind", ["dit", "classifier"])
def test_weights_are_sent_with_a_model_card(tmp_path: Path, kind: str) -> None:
    folder = Path((write_dit if kind == "dit" else write_classifier)(str(tmp_path / "net" / "weights")))
    assert main(["publish", str(folder), "--repo", "me/net"]) == 0
    files = FakeHub.sent["files"]
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    header, text = files["README.md"].decode().split("---\n")[1:]
    assert kind in yaml.safe_load(header)["tags"]
    assert f"# net: weights of a {kind}" in text
    assert "2 classes: cat, dog" in text
    assert FakeHub.sent["type"] == "model"


def test_weights_that_need_others_here_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_dit(str(tmp_path / "base"))
    save_dit(load_dit(base), tmp_path / "tuned", base=base)
    assert main(["publish", str(tmp_path / "tuned"), "--repo", "me/net"]) == 2
    assert "only what a training changed of the weights ../base, expected whole weights" in capsys.readouterr().err


def test_another_folder_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(tmp_path), "--repo", "me/set"]) == 2
    assert "expected a distilled set with dataset.json, or a folder of weights" in capsys.readouterr().err

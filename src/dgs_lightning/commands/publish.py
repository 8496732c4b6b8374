"""The command ``dgs publish``: a distilled set, or trained weights, for others on the Hugging Face hub.

The results of a run are added to the README.md that is sent, and never to the set itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgs_lightning.commands.arguments import Parser
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.editions import TERMS
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.readme import README, licence_id, readme
from dgs_lightning.documents.files import read_json
from dgs_lightning.documents.texts import yaml_text
from dgs_lightning.errors import InputError, counted, listed, printable, short
from dgs_lightning.exchange.writers import is_image_set
from dgs_lightning.models.hub import is_hub_id
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import SetName
from dgs_lightning.runs.results import is_passing

FORBIDDING = (TERMS.partition(":")[0], "CC BY-NC")  # beginnings of terms that do not let everybody pass images on
_LOAD_DIT = 'from dgs_lightning import GenerationTask\n\ntask = GenerationTask("FOLDER")'
_LOAD_CLASSIFIER = 'from dgs_lightning.models.estimator import load_estimator\n\nclassifier = load_estimator("FOLDER")'
CONFIG, OWN = "config.json", "dgs-lightning/"  # settings of weights, and how their format begins


@dataclass(frozen=True)
class Parcel:
    """What is sent.

    Args:
        kind: ``dataset`` or ``model``, as the hub calls it.
        files: Paths in the repository, each with the file.
        readme: Text of the README.md.
        licences: Terms of what is sent.
    """

    kind: str
    files: Mapping[str, Path]
    readme: str
    licences: Sequence[str] = field(default_factory=list)


def publish_parser() -> Parser:
    """Parser of ``dgs publish SOURCE --repo USER/NAME [--private] [--dry-run] [--accept-licence]``."""
    parser = Parser(
        prog="dgs publish", description="Send a distilled set, or trained weights, to the Hugging Face hub."
    )
    parser.add_argument("source", help="folder of a set, or of trained weights")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="repository on the hub; made if it is new")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="show the files and the README.md, and send nothing")
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="send images or weights whose licence does not let everybody do so",
    )
    return parser


def main(args: list[str]) -> None:
    """Publish what the command line names.

    Raises:
        InputError: If it is no set and no weights, its licences forbid it, or the hub refuses it.
    """
    options = publish_parser().parse_args(args)
    parcel = parcel_of(Path(options.source))
    if options.dry_run:
        names = "\n".join(sorted([*parcel.files, README]))
        print(printable(f"{parcel.kind} {options.repo}: {counted(len(parcel.files) + 1, 'file')}\n{names}\n"))
        print(printable(parcel.readme))
    if (forbidding := forbidding_of(parcel.licences)) and not options.accept_licence:
        if options.dry_run:
            print(printable(f"Its licences need --accept-licence: {'; '.join(forbidding)}"))
            return
        raise InputError(
            options.source,
            f"terms that do not let everybody publish it ({'; '.join(forbidding)})",
            "terms that do, or your consent",
            "Read the terms. If they let you publish it, add --accept-licence. Nothing was sent",
        )
    if not options.dry_run:
        print(printable(send(parcel, options.repo, options.private)))


def forbidding_of(licences: Sequence[str]) -> list[str]:
    """The licences that do not let everybody pass on what they cover."""
    return [licence for licence in licences if any(words in licence for words in FORBIDDING)]


def parcel_of(folder: Path) -> Parcel:
    """What is sent of a folder.

    Raises:
        InputError: If it is neither a set with a card nor weights of this package, or its images do not fit the card.
    """
    if is_image_set(folder):
        return _of_set(folder)
    if (folder / CONFIG).is_file():
        return _of_weights(folder)
    expected = "a distilled set with dataset.json, or a folder of weights with config.json"
    raise (
        InputError.missing(folder, expected)
        if not folder.exists()
        else InputError(folder, "neither", expected, "Name the folder of one set, such as runs/NAME/distilled/SET")
    )


def _files_of(folder: Path) -> dict[str, Path]:
    """The files of a folder without logs, checkpoints, hidden files, and the README.md."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in sorted(names.items()) if not is_passing(name) and name != README}


def _of_set(folder: Path) -> Parcel:
    card, records = read_card(folder), read_set(folder)
    text = readme(card, records, results=results_of(folder))
    return Parcel("dataset", _files_of(folder), text, card.get("licences", []))


def results_of(folder: Path) -> str:
    """Section with the accuracies of networks that a run trained on its set in this folder; empty without any."""
    run = folder.absolute().parent.parent
    name = SetName.parse(folder.absolute().name)
    if not (run / layout.EXPERIMENT).is_file() or folder.absolute().parent.name != layout.DISTILLED:
        return ""
    summary = read_json(
        run / layout.SUMMARY, dict[str, Any], "the summary of a run", "Run dgs report again", default={}
    )
    lines = [
        f"| {row['network']} | {_percent(row, 'best')} | {_percent(row, 'last')} | {row['trainings']} |"
        for row in summary.get("rows", [])
        if (row["method"], row["ipc"]) == (name.row, name.ipc) and row.get("accuracy_last_mean") is not None
    ]
    if not lines:
        return ""
    head = "| Network | Best, % | Last, % | Trainings |\n| --- | ---: | ---: | ---: |\n"
    said = (
        "Accuracy on real validation images of networks that were trained on this set from scratch, or on this set and "
        "others of the same method that were made with other seeds: mean and sample standard deviation."
    )
    return f"## Results\n\n{said}\n\n{head}" + "\n".join(lines)


def _percent(row: Mapping[str, Any], which: str) -> str:
    """An accuracy of a row of the summary, in percent, with its spread if there is one."""
    mean, spread = row[f"accuracy_{which}_mean"], row[f"accuracy_{which}_std"]
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def _of_weights(folder: Path) -> Parcel:
    expected = "the settings of weights that dgs-lightning trained"
    config = read_json(folder / CONFIG, dict[str, Any], expected, "Name a folder of weights")
    if not str(config.get("format", "")).startswith(OWN):
        raise InputError(folder / CONFIG, "weights of another program", expected, "Publish them with 'hf upload'")
    base = (config.get("base") or {}).get("source")
    if base is not None and not is_hub_id(base):
        found = f"only what a training changed of the weights {base}"
        remedy = f"Write whole weights: dgs export --dit {folder} --output FOLDER, and publish them with 'hf upload'"
        raise InputError(folder, found, "whole weights", remedy)
    kind, labels = str(config["format"]).removeprefix(OWN), [str(label) for label in config.get("labels", [])]
    licences = list(config.get("licences", []))
    header = {
        "license": licence_id(licences),
        "library_name": "dgs-lightning",
        "tags": ["dataset-distillation", kind],
        "pipeline_tag": "unconditional-image-generation" if kind == "dit" else "image-classification",
    }
    code = _LOAD_DIT if kind == "dit" else _LOAD_CLASSIFIER
    shown = {name: value for name, value in config.items() if name not in ("labels", "licences", "format")}
    parts = [
        f"# {folder.absolute().parent.name if folder.name == 'weights' else folder.name}: weights of a {kind}",
        f"Trained with `dgs-lightning` on {counted(len(labels), 'class')}: {listed(labels, 1000)}.",
        f"## Settings\n\n```yaml\n{yaml_text(shown)}```",
        "## Licence\n\n" + "\n".join(f"- {licence}" for licence in licences or ["that of the training images"]),
        f"## How to load it\n\n```python\n{code}\n```",
    ]
    return Parcel("model", _files_of(folder), f"---\n{yaml_text(header)}---\n\n" + "\n\n".join(parts) + "\n", licences)


def send(parcel: Parcel, repo: str, private: bool) -> str:
    """Send all files in one commit, so that the repository has all of them or none.

    Args:
        parcel: What is sent.
        repo: Repository on the hub, ``USER/NAME``.
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        InputError: If the hub refuses it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = [CommitOperationAdd(name, path) for name, path in parcel.files.items()]
    files.append(CommitOperationAdd(README, parcel.readme.encode()))
    hub = HfApi()
    try:
        hub.create_repo(repo, repo_type=parcel.kind, private=private, exist_ok=True)
        if private and not hub.repo_info(repo, repo_type=parcel.kind).private:
            remedy = "Make it private on the hub, or name a new one. Nothing was sent"
            raise InputError(f"--repo {repo}", "a public repository", "a private or a new one", remedy)
        commit = hub.create_commit(repo, files, commit_message="Publish with dgs-lightning", repo_type=parcel.kind)
    except InputError:
        raise
    except Exception as error:  # of the hub's library, and of the several ones that it talks to the hub with
        found = f"the hub did not take it ({type(error).__name__}: {short(error)})"
        remedy = (
            "Check the connection and the name USER/NAME, and log in with a token that may write: 'hf auth login', or "
            "HF_TOKEN. Nothing here was changed: run the same command again"
        )
        raise InputError(f"--repo {repo}", found, "a repository that you may write to", remedy) from error
    return str(commit.commit_url)

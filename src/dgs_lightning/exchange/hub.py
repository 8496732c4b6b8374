"""Sets on the Hugging Face hub, by ``hf://USER/NAME``."""

import os
import re
from pathlib import Path

from dgs_lightning.errors import InputError
from dgs_lightning.files import refused

PREFIX = "hf://"
_NAME = re.compile(r"(datasets/)?(?P<name>[\w.-]+/[\w.-]+)")


def is_on_hub(path: str) -> bool:
    """Whether a path names a data set of the hub."""
    return path.startswith(PREFIX)


def local_copy(path: str) -> tuple[Path, str]:
    """A set on this machine, and where it comes from, for its card.

    Args:
        path: A file or folder; or ``hf://USER/NAME``, of which the newest revision is downloaded into the user's cache,
            by the hub's rules for tokens, unless it is there.

    Raises:
        InputError: If the hub does not give the data set.
    """
    if not is_on_hub(path):
        return Path(path), Path(path).name
    match = _NAME.fullmatch(path.removeprefix(PREFIX))
    if match is None:
        raise InputError(path, "no name of a data set", f"{PREFIX}USER/NAME", "Correct it")
    from huggingface_hub import HfApi

    hub, name = HfApi(), match["name"]
    try:
        revision = str(hub.dataset_info(name).sha)
        folder = _cache() / name / revision  # real files: the cache of the hub has links, which lead out of a folder
        hub.snapshot_download(name, repo_type="dataset", revision=revision, local_dir=folder)
    except Exception as error:  # of the hub's library, and of the several ones that it talks to the hub with
        found = f"a data set that the hub does not give ({type(error).__name__})"
        copy = f"'hf download --repo-type dataset {name} --local-dir FOLDER'"
        remedy = (
            "Check its name, the network and, for a private one, your login ('hf auth login'). The same command goes "
            f"on with the download. Or give the folder of a copy, which {copy} makes"
        )
        raise refused(path, error) or InputError(path, found, "a data set of the Hugging Face hub", remedy) from None
    return folder, f"{path} at revision {revision}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgs-lightning" / "sets"

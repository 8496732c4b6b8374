"""The image files below a folder, and nothing that lies outside it."""

import os
from collections.abc import Iterator
from pathlib import Path

from dgs_lightning.errors import InputError

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def image_files(folder: Path) -> Iterator[str]:
    """POSIX paths of the image files below a folder, without hidden ones, relative to it, in no order.

    Raises:
        InputError: If there is no such folder, a link in it leads to a folder or out of it, or an image is no file
            or has a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(
            folder, found="no such folder", expected="a folder with class folders of images", remedy="Check the path"
        )
    root = os.path.realpath(folder)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    _refuse_link_out(entry, root)
                elif entry.is_dir():
                    waiting.append(f"{below}{entry.name}/")
                    continue
                if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    if not entry.is_file():
                        raise InputError(
                            entry.path,
                            found="a pipe, a socket or a device",
                            expected="an image file",
                            remedy="Remove it",
                        )
                    yield _encodable(folder, below + entry.name)


def _refuse_link_out(link: os.DirEntry[str], root: str) -> None:
    """Refuse a link out of the tree, a broken one, and any to a folder, which may lead in circles."""
    target = os.path.realpath(link.path)
    if not os.path.isfile(target) or not Path(target).is_relative_to(root):
        raise InputError(
            link.path,
            found=f"a link to {target}",
            expected="images of the folder's own, or links to them",
            remedy="Copy the files there instead",
        )


def _encodable(folder: Path, name: str) -> str:
    """The name, which a manifest must be able to hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(
            folder,
            found=f"a file name that is not UTF-8, {os.fsencode(name)!r}",
            expected="names in UTF-8",
            remedy="Rename the file",
        ) from None
    return name

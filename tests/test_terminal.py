"""What a terminal, a Markdown file and a figure show of names that were chosen to do more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from dgs_lightning.commands.cli import logs_on_stderr
from dgs_lightning.errors import InputError, printable
from dgs_lightning.experiment.progress import Progress
from dgs_lightning.reporting.formats import Grid, markdown, markdown_table
from dgs_lightning.reporting.terminal import to_terminal

EVIL = "a\x1b[2J\x07\u202eb\udcff\x9b31m"
LOGGED = EVIL.replace("\udcff", "")  # pytest sends logs between processes, in UTF-8
SHOWN = r"a\x1b[2J\x07\u202eb\udcff\x9b31m"


def dgs(*arguments: str | bytes, closed: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """A command of ``dgs``, started by a shell that closes streams, such as with ``>&-``."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "dgs_lightning", *arguments]
    return subprocess.run(command, capture_output=True, cwd=folder, check=False, timeout=300)


def test_control_characters_are_shown_by_their_codes() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("one\ntwo é 犬") == "one\ntwo é 犬"
    for part in range(4):
        error = InputError(*(EVIL if part == at else "x" for at in range(4)))
        assert SHOWN in str(error)
        assert str(error).isprintable()


def test_no_name_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from dgs_lightning.doctor.finding import problem, show

    progress = Progress(1)
    progress.begin(EVIL, EVIL)
    progress.say(EVIL)
    progress.finish(EVIL, 1)
    progress.console.print(to_terminal(Grid(("Method", "IPC"), [(EVIL, EVIL)], 2)))
    show([problem(EVIL, EVIL)])
    with logs_on_stderr():
        logging.getLogger("dgs_lightning").warning("%s", LOGGED)
    told = capsys.readouterr()
    assert not {"\x1b", "\x07", "\u202e", "\udcff", "\x9b"} & set(told.out + told.err)
    assert told.out.count(r"\x1b[2J") == 8
    assert printable(LOGGED) in told.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    assert dgs("--help", closed=closed).returncode == 0
    assert dgs("nope", closed=closed).stderr == (b"" if closed == "2>&-" else dgs("nope").stderr)


def test_a_command_works_with_closed_streams_and_in_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    ended = dgs("prepare", "--data=digits", "--output=data", closed="<&- >&- 2>&-", folder=folder)
    assert ended.returncode == 0
    assert (folder / "data" / "val" / "dataset.json").read_text().startswith("{")


def test_bytes_that_are_not_utf_8_are_one_line(tmp_path: Path) -> None:
    ended = dgs("run", "quickstart", "--dry-run", b"--output=caf\xe9", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1
    assert rb"caf\udce9, which has bytes that are not UTF-8" in ended.stderr
    assert not list(tmp_path.iterdir())


MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[here](javascript:alert(1))",
    "![x](http://127.0.0.1/x.png)",
    "**bold** _it_ `code` ~~gone~~ $x$",
    "a | b",
    "one\n\n# two\n\n- three",
    "&lt;b&gt; &amp;",
    "\\*no\\*",
    "resnet_ap10 and dag.stop_timestep",
]


@pytest.mark.parametrize("text", MARKUP)
def test_markdown_shows_a_title_as_it_is(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["strikethrough", "table"]).parse(f"# {markdown(text)}\n")
    assert [token.type for token in tokens] == ["heading_open", "inline", "heading_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == " ".join(text.split())
    lines = markdown_table(Grid(("Method", text), [(text, "1.0")], 1))
    table = MarkdownIt("commonmark").enable(["strikethrough", "table"]).parse("\n".join(lines))
    cells = [token for token in table if token.type == "inline"]
    assert [len(lines), len(cells)] == [3, 4]
    assert all(child.type in ("text", "text_special") for cell in cells for child in cell.children or [])

import pickle

import pytest

from dgs_lightning.errors import InputError, listed, short

ERROR = InputError("ipc", 0, "at least 1", "Set ipc to 1 or more")


def test_the_message_says_where_what_and_what_to_do() -> None:
    assert str(ERROR) == "ipc: found 0, expected at least 1. Set ipc to 1 or more."
    assert ERROR.parts == ("ipc", "0", "at least 1", "Set ipc to 1 or more")


def test_an_error_in_a_worker_arrives_as_it_was() -> None:
    arrived = pickle.loads(pickle.dumps(ERROR))
    assert isinstance(arrived, InputError)
    assert str(arrived) == str(ERROR)


def test_characters_that_no_terminal_prints_are_escaped() -> None:
    assert str(InputError("a\nb\udcff", "\x1b[0m", "x", "y")) == r"a\nb\udcff: found \x1b[0m, expected x. y."


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError.setting("ipc", 0, "at least 1"), "ipc: found 0, expected at least 1. Correct the setting."),
        (InputError.unset("data", "a folder", "FOLDER"), "data: found nothing, expected a folder. Set data=FOLDER."),
        (InputError.choice("crop", "x", ("plain", "adm")), "found 'x', expected one of plain, adm. Name one of them."),
        (InputError.wrong_class("Grid", (0, ""), "float"), "Grid: found int with str, expected float. Use it with flo"),
        (InputError.resume("lr 1"), "to resume: found lr 1, expected the settings of this run. Resume with the old"),
        (InputError.not_finite("loss", float("nan"), "Lower lr"), "found nan, expected a finite number. Lower lr."),
        (InputError.missing("x", "weights"), "x: found no such file or folder, expected weights. Check the path."),
        (InputError.broken("x", KeyError("k"), "a card"), "x: found a broken file ('k'), expected a card. Delete it"),
        (InputError.line("m", 3, "text"), "m, line 3: found text, expected one JSON object an image with 'file_name'"),
        (InputError.occupied("o", "files"), "o: found files, expected an empty folder, or an earlier result of this"),
        (InputError.busy("o"), "o: found another run that writes into it, expected a folder of this run's own. Wait"),
        (
            InputError.weights("w", "none", "a DiT"),
            "w: found none, expected a DiT. Give the weights of a model of this",
        ),
        (
            InputError.labels("d", "all", "Rename them", missing=("a", "b"), unknown=("c",)),
            "d: found 2 missing labels (a, b); 1 unknown label (c), expected all. Rename them.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_constructor_states_expected_and_remedy(error: InputError, message: str) -> None:
    assert message in str(error)


def test_a_list_ends_after_the_first_few() -> None:
    assert listed("abc", 3) == "a, b, c"
    assert listed("abcd", 3) == "a, b, c, ..."


def test_a_long_problem_becomes_one_short_line() -> None:
    assert short("two\n  lines.") == "two lines"
    assert short("x" * 300) == "x" * 200
    assert short(EOFError()) == "EOFError"

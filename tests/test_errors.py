import pickle

from dgs_lightning.errors import InputError

ERROR = InputError("ipc", found="0", expected="at least 1", remedy="Set ipc to 1 or more")


def test_the_message_says_where_what_and_what_to_do() -> None:
    assert str(ERROR) == "ipc: found 0, expected at least 1. Set ipc to 1 or more."


def test_an_error_in_a_worker_arrives_as_it_was() -> None:
    arrived = pickle.loads(pickle.dumps(ERROR))
    assert isinstance(arrived, InputError)
    assert str(arrived) == str(ERROR)

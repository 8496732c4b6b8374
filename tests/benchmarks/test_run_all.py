import platform
from pathlib import Path

import pytest
from page import page
from run_all import machine, measure, processor
from topics import TOPICS, Topic


def test_the_processor_has_the_name_that_the_system_gives_it() -> None:
    assert processor("processor\t: 0\nmodel name\t: Swift 9000 @ 3GHz\n" * 2) == "Swift 9000 @ 3GHz"
    assert processor("processor\t: 0\nBogoMIPS\t: 50.00\n") == platform.machine()


def test_the_page_names_neither_host_nor_folder() -> None:
    text = page([], machine(), short=False)
    assert {"processor", "cores", "threads", "memory", "python", "torch"} <= machine().keys()
    assert platform.node() not in text.split()
    assert str(Path.home()) not in text


@pytest.mark.slow
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.title)
def test_the_short_form_fills_the_tables(topic: Topic) -> None:
    text = page([measure(topic, short=True)], {}, short=True)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len([row for row in rows if "`" in row]) == len(topic.cases) + (topic.growth is not None)

import doctest
import sys

import pytest

import dgs_lightning

CLASSES = [getattr(dgs_lightning, name) for name in dgs_lightning.__all__]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_example_of_a_public_class_runs(kind: type) -> None:
    assert ">>>" in (kind.__doc__ or "")
    names = dict(vars(sys.modules[kind.__module__]))
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(recurse=False).find(kind, kind.__name__, globs=names):
        runner.run(example)
    assert runner.summarize().failed == 0

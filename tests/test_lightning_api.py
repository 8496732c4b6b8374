import importlib
import inspect
import pkgutil
import re

import dgs_lightning


def our_classes() -> list[type]:
    """All classes that the package defines."""
    names = [module.name for module in pkgutil.walk_packages(dgs_lightning.__path__, "dgs_lightning.")]
    modules = [importlib.import_module(name) for name in names]
    return [
        member
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__
    ]


def test_no_class_uses_private_names_of_lightning() -> None:
    """Neither by overriding them nor by reading them from itself."""
    checked = 0
    for kind in our_classes():
        bases = [base for base in kind.__mro__ if base.__module__.startswith("lightning.")]
        private = {name for base in bases for name in vars(base) if re.match(r"_[a-z]", name) and name != "_abc_impl"}
        used = set(re.findall(r"(?:\bself|\bcls|super\(\))\.(_[a-z]\w*)|def (_[a-z]\w*)", inspect.getsource(kind)))
        assert not private & {name for pair in used for name in pair}, kind
        checked += bool(bases)
    assert checked > 20


def test_no_module_uses_private_names_of_lightnings_objects() -> None:
    for module in pkgutil.walk_packages(dgs_lightning.__path__, "dgs_lightning."):
        source = inspect.getsource(importlib.import_module(module.name))
        found = re.findall(r"\b(?:trainer|pl_module|strategy|loop|logger|parser|cli)\._[a-z]\w*", source)
        assert not found, module.name
        assert not re.search(r"import .*lightning\S*\._|from lightning\S* import _", source), module.name

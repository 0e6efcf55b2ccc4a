from importlib import import_module
from inspect import signature

import pytest

from fed_gswgan.baselines.registry import METHODS

ARGUMENTS = {
    "images_NCHW", "labels_N", "num_classes", "settings", "epsilon", "delta", "seed", "progress",
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_function_and_both_presets(name):
    method = METHODS[name]
    module = import_module(f"fed_gswgan.baselines.{method.module}")
    assert set(signature(getattr(module, method.function)).parameters) == ARGUMENTS
    assert set(method.presets) == set(method.seeds) == {"small", "full"}
    small, full = (method.settings(preset) for preset in method.presets)
    assert type(small) is type(full)
    assert small != full


def test_titles_differ():
    assert len({method.title for method in METHODS.values()}) == len(METHODS)

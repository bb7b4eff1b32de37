from typing import Any, Literal

import pytest

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hints import checked


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        (3, float, 3.0),
        ("1e-3", float, 1e-3),
        (None, int | None, None),
        ("vit.layers.0", str | list[str] | None, "vit.layers.0"),
        (["q_proj", "v_proj"], str | list[str] | None, ["q_proj", "v_proj"]),
        ({"q_proj", "v_proj"}, str | list[str] | None, {"q_proj", "v_proj"}),
        ([1, 2], list[int] | int | None, [1, 2]),
        ({"q_proj": 4}, dict | None, {"q_proj": 4}),
        (False, bool | Literal["gaussian"], False),
        ("gaussian", bool | Literal["gaussian"], "gaussian"),
        ("pissa_niter_4", bool | Literal["pissa_niter_[number of iters]"], "pissa_niter_4"),
        (object, Any, object),
    ],
)
def test_values_of_a_type(value, hint, found):
    assert checked("x", value, hint, {}) == found


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        ("8", int, "x is a whole number; got '8'"),
        (2.5, int, "a whole number"),
        (True, int, "a whole number"),
        (True, float, "a number"),
        (float("nan"), float, "a number"),
        (None, int, "got None"),
        ("high", float | None, "a number or none"),
        ("uniform", bool | Literal["gaussian"], "true or false or one of gaussian"),
        (["q_proj", 3], str | list[str], "text or a list"),
        ("q_proj", list[str], "a list"),
        ([4], dict | None, "a mapping of names to values or none"),
    ],
)
def test_values_of_another_type(value, hint, said):
    with pytest.raises(MedfmcError, match=said):
        checked("x", value, hint, {})

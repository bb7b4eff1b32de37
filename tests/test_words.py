import math

import pytest

from medfmc_hf.words import MISSING, count, interval, percent, plural, shots_words


@pytest.mark.parametrize(("value", "shown"), [(0.63214, "63.21"), (0.0, "0.00"), (1, "100.00"), (None, MISSING), (math.nan, MISSING)])
def test_percent(value, shown):
    assert percent(value) == shown


def test_intervals():
    assert interval((0.601, 0.66)) == "60.10 to 66.00"
    assert interval((-0.01, 0.02), "+") == "-1.00 to +2.00"
    assert interval(None) == interval((math.nan, 0.5)) == MISSING and interval(None, missing="-") == "-"


def test_counts_and_plurals():
    assert [count(n) for n in (None, 0, 999, 85_801_732, 2.5e9)] == [MISSING, "0", "999", "85.8 M", "2.5 G"]
    assert [plural("study"), plural("study", 1), plural("region", 0), plural("run", 2)] == ["studies", "study", "regions", "runs"]
    assert [shots_words(shots) for shots in ("5", "pool", "train_20")] == ["5-shot", "whole pool", "train_20"]

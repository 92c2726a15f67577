import json
import math

import pytest

from earnest.finding import Curve, Finding, Metric, Table


def test_metric_prints_its_interval():
    assert str(Metric(0.7034, 0.651, 0.75, 333, "wilson 95 %")) == "70.3 % [65.1, 75.0], n = 333"
    assert str(Metric(2.5, 2, math.inf, 3, "m", "s")) == "2.500 s [2.000, inf], n = 3"


def test_finding_survives_json_with_numbers_that_are_not_finite():
    metric = Metric(math.inf, -math.inf, math.inf, 3, "m", "")
    finding = Finding(
        "reliability.idk",
        {"b": metric, "a": Metric(0.5, 0.4, 0.6, 10, "wilson 95 %")},
        (Table("t", ("x", "y"), (("a", metric), (None, -math.inf), (1, 2.5)), "note"),),
        (Curve("c", "l", "x (s)", "y", (0.0, 1.0), (1.0, math.inf), (0.5, 0.5), (2.0, math.inf)),),
        ({"id": "1"},),
        ("a note",),
    )
    text = json.dumps(finding.to_json(), allow_nan=False)
    read = Finding.from_json(json.loads(text))
    assert read == finding and list(read.metrics) == ["b", "a"]
    nan = Metric(math.nan, math.nan, math.nan, 0, "m")
    assert math.isnan(Metric.from_json(json.loads(json.dumps(nan.to_json(), allow_nan=False))).value)


def test_ragged_tables_and_curves_are_refused():
    with pytest.raises(AssertionError, match="ragged"):
        Table("t", ("x",), ((1, 2),))
    with pytest.raises(AssertionError, match="incomplete"):
        Curve("c", "l", "x", "y", (1.0,), ())

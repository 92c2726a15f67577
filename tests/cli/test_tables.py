import pytest

from earnest.cli.tables import print_table
from earnest.finding import Metric, Table


def rate(value: float, n: int) -> Metric:
    return Metric(value, value - 0.1, value + 0.1, n, "wilson 95 %")


UNKNOWN = Metric(float("nan"), float("nan"), float("nan"), 0, "none")


def test_one_n_for_all_stands_in_the_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        Table("Gains", ("way", "accuracy", "gain"), (("a", rate(0.5, 40), UNKNOWN), ("b", rate(0.25, 40), None)))
    )
    assert capsys.readouterr().out.splitlines() == [
        "Gains, n = 40",
        "way  accuracy             gain",
        "a    50.0 % [40.0, 60.0]  -",
        "b    25.0 % [15.0, 35.0]",
    ]


def test_an_n_for_each_row_has_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Table("Gains", ("way", "accuracy"), (("a", rate(0.5, 40)), ("b", rate(0.25, 7)), ("c", None))))
    assert capsys.readouterr().out.splitlines() == [
        "Gains",
        "way  accuracy             n",
        "a    50.0 % [40.0, 60.0]  40",
        "b    25.0 % [15.0, 35.0]  7",
        "c",
    ]


def test_where_the_n_of_a_row_differ_each_stands_beside_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Table("Gains", ("way", "sound", "music"), (("a", rate(0.5, 40), rate(0.25, 7)), ("b", 1.25, 3))))
    assert capsys.readouterr().out.splitlines() == [
        "Gains",
        "way  sound                        music",
        "a    50.0 % [40.0, 60.0], n = 40  25.0 % [15.0, 35.0], n = 7",
        "b    1.2                          3",
    ]

"""Tables that fit."""

from asgictl.control.table import Column, table

COLUMNS = Column("name", is_text=True), Column("pid"), Column("up", 1), Column("CPU", 2)


def test_text_stands_left_and_numbers_right() -> None:
    assert table(COLUMNS, [("a", 1234, "5 s", "3%"), ("long-one", 5, "1 min", "100%")], 80) == [
        "name       pid     up   CPU",
        "a         1234    5 s    3%",
        "long-one     5  1 min  100%",
    ]


def test_columns_without_room_go_the_highest_rank_first() -> None:
    row = ("worker-00", 1234, "5 s", "3%")
    assert table(COLUMNS, [row], 26)[0] == "name        pid   up  CPU"
    assert table(COLUMNS, [row], 24)[0] == "name        pid   up"
    assert table(COLUMNS, [row], 15) == ["name        pid", "worker-00  1234"]


def test_a_column_that_says_nothing_is_left_out() -> None:
    assert table(COLUMNS, [("a", 1, "", "3%"), ("b", 2, "", "")], 80)[0] == "name  pid  CPU"


def test_of_what_has_to_stay_the_end_is_cut() -> None:
    columns = Column("name", is_text=True), Column("what", is_text=True)
    assert table(columns, [("a", "GET /" + "x" * 50)], 20) == ["name  what", "a     GET /xxxxxxxx…"]

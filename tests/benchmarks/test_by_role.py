"""The arithmetic of CPU by role, on samples that were recorded."""

from benchmarks.by_role import ALL, Ratio, Sample, Spread, by_role, compare, describe, describe_ratios, ratio

SPLIT = [
    Sample(14_000, {"redis": 23.0, "interface": 51.0, "worker": 33.0, "controller": 0.0}),
    Sample(13_000, {"redis": 24.0, "interface": 50.0, "worker": 34.0, "controller": 0.5}),
    Sample(15_000, {"redis": 22.0, "interface": 52.0, "worker": 32.0, "controller": 0.0}),
]
SLOWER = [Sample(sample.rate / 2, sample.cpu | {"interface": sample.cpu["interface"] * 2}) for sample in SPLIT]
OTHER = [Sample(7_000, {"server": 100.0}), Sample(7_100, {"server": 110.0}), Sample(7_200, {"server": 120.0})]


def test_a_role_is_told_by_its_median_and_spread() -> None:
    assert describe(SPLIT) == (
        "interface 51.0 (50.0–52.0) · worker 33.0 (32.0–34.0) · Redis 23.0 (22.0–24.0) · controller 0.00 (0.00–0.50)"
        " · all 107 (106–108)"
    )


def test_a_process_that_was_there_in_one_round_used_nothing_in_the_others() -> None:
    assert by_role([Sample(1, {"worker": 1.0}), Sample(1, {"worker": 1.0, "redis": 2.0})]) == {
        "worker": [1.0, 1.0],
        "Redis": [0.0, 2.0],
        ALL: [1.0, 3.0],
    }


def test_sides_are_compared_by_all_and_by_the_roles_that_both_have_and_use() -> None:
    assert describe_ratios(SPLIT, OTHER) == "all 0.97 (0.88–1.07)"
    assert describe_ratios(SLOWER, SPLIT) == (
        "all 1.48 (1.46–1.49) · interface 2.00 (2.00–2.00) · worker 1.00 (1.00–1.00) · Redis 1.00 (1.00–1.00)"
    )


def test_the_ratio_is_that_of_the_medians_and_the_spread_that_of_neighbouring_rounds() -> None:
    assert ratio([4.0, 2.0, 6.0], [2.0, 2.0, 4.0]) == Ratio(2.0, 1.0, 2.0, 4.0, 2.0)


def test_trees_are_compared_role_by_role() -> None:
    rows = {row.role: row for row in compare(SLOWER, SPLIT)}
    assert list(rows) == ["interface", "worker", "Redis", "controller", "all", "events/s"]
    assert rows["interface"] == ("interface", Spread(102, 100, 104), Spread(51, 50, 52), 2.0, True)
    assert rows["worker"].ratio == 1.0
    assert rows["controller"].ratio is None, "nothing was used then"
    assert rows["events/s"].ratio == 0.5
    assert [role for role, row in rows.items() if row.apart] == ["interface", "all", "events/s"]


def test_a_role_that_one_tree_lacks_used_nothing_there() -> None:
    found = next(row for row in compare(OTHER, SPLIT) if row.role == "server")
    assert found == ("server", Spread(110, 100, 120), Spread(0, 0, 0), None, True)

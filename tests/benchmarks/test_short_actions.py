"""The almost perfect network of short_actions.py: without noise everything is found, and shorter settings find more."""

from benchmarks import short_actions as bench


def test_long_actions_are_found_and_short_ones_need_the_settings_of_own() -> None:
    long, short = bench.videos(3, 8), bench.videos(0.5, 0.95)
    rules = list(bench.RULES.values())
    assert bench.mean_ap(long, 4, 0.0, 1, rules[0]).min() > 85
    usual, own = (bench.mean_ap(short, 4, 0.7, 3, rule).mean() for rule in (rules[0], rules[-1]))
    assert own > usual + 20
    assert all(0 < mark.start < (mark.end or 0) < bench.SECONDS for of in (*long, *short) for mark in of.marks)

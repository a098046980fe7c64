"""The almost perfect network of short_actions.py: without noise all is found, and short actions need the stride."""

from benchmarks import short_actions as bench


def test_long_actions_are_found_and_short_ones_need_the_stride_of_own() -> None:
    long, short = bench.videos(3, 8), bench.videos(0.5, 0.95)
    rules = list(bench.RULES.values())
    assert bench.mean_ap(long, 4, 0.0, 1, rules[0]).min() > 85
    coarse, fine = (bench.mean_ap(short, stride, 0.7, 3, rules[0]).mean() for stride in (16, 4))
    assert coarse < 5 and fine > 75
    # The usual rule is as good there as one without smoothing, of any length, so `own` leaves it as it is.
    assert fine > bench.mean_ap(short, 4, 0.7, 3, rules[-1]).mean() - 3
    assert all(0 < mark.start < (mark.end or 0) < bench.SECONDS for of in (*long, *short) for mark in of.marks)

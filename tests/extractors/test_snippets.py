"""The snippet rule, stated a second time by brute force."""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extractors.config import WHOLE, FeatureConfig, Stretch
from extractors.snippets import Snippet, frame_range, snippet_range, snippet_times, snippets

lengths = st.integers(1, 20)
strides = st.integers(1, 24)


def stream(first: int, last: float, total: int) -> Iterator[tuple[int, np.ndarray]]:
    """Grid points first <= k < last of a video with `total` frames; each frame is its number."""
    for k in range(first, int(min(last, total))):
        yield k, np.full((1, 1, 3), k)


def values(snippet: Snippet) -> tuple[int, list[int], int | None, bool]:
    following = None if snippet.following is None else int(snippet.following[0, 0, 0])
    return snippet.index, [int(f[0, 0, 0]) for f in snippet.frames], following, snippet.padded


def rule(total: int, length: int, stride: int) -> list[tuple[int, list[int], int | None, bool]]:
    """Every i whose frames [i*stride, i*stride + length) all exist; one padded snippet for a video shorter than one."""
    if 0 < total < length:
        return [(0, [*range(total), *[total - 1] * (length - total)], None, True)]
    found = []
    for i in range(total):
        behind = i * stride + length
        if behind <= total:
            found.append((i, list(range(i * stride, behind)), behind if behind < total else None, False))
    return found


@given(st.integers(0, 120), lengths, strides)
def test_snippets_equal_the_rule(total: int, length: int, stride: int) -> None:
    found = [values(s) for s in snippets(stream(0, math.inf, total), length=length, stride=stride)]
    assert found == rule(total, length, stride)


@pytest.mark.parametrize(("total", "count"), [(201, 12), (192, 12), (191, 11), (16, 1), (17, 1), (31, 1), (32, 2)])
def test_the_tail_is_dropped(total: int, count: int) -> None:
    assert len(list(snippets(stream(0, math.inf, total), length=16, stride=16))) == count


def test_flow_gets_the_frame_behind_each_snippet_and_none_at_the_end() -> None:
    found = [values(s) for s in snippets(stream(0, math.inf, 48), length=16, stride=16)]
    assert [following for _, _, following, _ in found] == [16, 32, None]


def test_a_short_video_is_padded_with_its_last_frame() -> None:
    (only,) = snippets(stream(0, math.inf, 5), length=16, stride=16)
    assert only.padded
    assert values(only)[1] == [0, 1, 2, 3, 4] + [4] * 11
    assert only.following is None


def test_what_belongs_to_the_next_chunk_is_not_made() -> None:
    found = [values(s) for s in snippets(stream(0, math.inf, 100), length=16, stride=16, last=2)]
    assert [index for index, *_ in found] == [0, 1]


def test_no_frames_no_snippets() -> None:
    assert list(snippets(iter(()), length=16, stride=16)) == []


@given(total=st.integers(1, 120), length=lengths, stride=strides, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_chunks_join_to_the_whole(total: int, length: int, stride: int, cuts: list[int]) -> None:
    """Each chunk is read on its own, as `Frames.grid` does, from the grid points that `frame_range` names."""
    config = FeatureConfig(length=length, stride=stride)
    edges: list[float] = [0, *sorted(cuts), math.inf]
    joined = []
    for first, last in itertools.pairwise(edges):
        begin, end = frame_range(int(first), last, config)
        joined += [values(s) for s in snippets(stream(begin, end, total), length=length, stride=stride, last=last)]
    assert joined == rule(total, length, stride)


@given(first=st.integers(0, 30), count=st.integers(1, 10), length=lengths, stride=strides)
def test_a_chunk_reads_no_more_frames_than_it_needs(first: int, count: int, length: int, stride: int) -> None:
    config = FeatureConfig(length=length, stride=stride)
    read = 0

    def counted() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal read
        for pair in stream(*frame_range(first, first + count, config), 10**6):
            read += 1
            yield pair

    made = list(snippets(counted(), length=length, stride=stride, last=first + count))
    assert [s.index for s in made] == list(range(first, first + count))
    assert all(s.following is not None for s in made)
    assert read == (count - 1) * stride + length + 1


# --- seconds ----------------------------------------------------------------------------------------------------------


def test_rows_tile_time_in_steps_of_0_64_s() -> None:
    config = FeatureConfig()
    for i in (0, 1, 7, 56_000):
        assert snippet_times(i, 0.0, config) == pytest.approx((0.64 * i, 0.64 * (i + 1)))
    assert snippet_times(2, 1.5, config) == pytest.approx((2.78, 3.42))


@given(st.integers(0, 1000), lengths, strides)
def test_cells_tile_time_around_the_snippets_centre(index: int, length: int, stride: int) -> None:
    config = FeatureConfig(length=length, stride=stride)
    start, end = snippet_times(index, 0.0, config)
    assert end == pytest.approx(snippet_times(index + 1, 0.0, config)[0])
    assert (start + end) / 2 * 25 == pytest.approx(index * stride + length / 2)


hundredths = st.integers(0, 3000).map(lambda n: Fraction(n, 100))


@given(hundredths, hundredths, st.sampled_from([0.0, 0.04, 2.0]), lengths, strides)
@example(Fraction(0), Fraction(0), 0.0, 16, 4)  # before the first cell, which starts at 0.24 s
def test_a_stretch_is_covered_by_its_snippets(
    start: Fraction, length_s: Fraction, origin: float, length: int, stride: int
) -> None:
    """Exactly the cells that overlap start..end, in rational arithmetic; what lies before the first cell is its."""
    config = FeatureConfig(length=length, stride=stride)
    end = start + length_s + Fraction(1, 100)
    zero = Fraction(str(origin)) + Fraction(length - stride, 50)
    cells = [(i, zero + Fraction(i * stride, 25), zero + Fraction((i + 1) * stride, 25)) for i in range(1600)]
    touched = [i for i, left, right in cells if left < end and right > start]
    first, last = snippet_range(Stretch(float(start), float(end)), origin, config)
    if touched:
        assert (first, last) == (touched[0], touched[-1] + 1)
    else:
        assert end <= zero
        assert (first, last) == (0, 1 if end > Fraction(str(origin)) else 0)


def test_chunks_at_snippet_edges_share_nothing() -> None:
    config = FeatureConfig()
    for i in range(2000):
        first, last = snippet_range(Stretch(0.64 * i, 0.64 * (i + 1)), 0.0, config)
        assert (first, last) == (i, i + 1)


def test_the_whole_video() -> None:
    assert snippet_range(WHOLE, 3.7, FeatureConfig()) == (0, math.inf)
    assert frame_range(0, math.inf, FeatureConfig()) == (0, math.inf)


def test_an_index_is_a_whole_number() -> None:
    for total in (32, 33):
        assert all(type(s.index) is int for s in snippets(stream(0, math.inf, total), length=16, stride=16))

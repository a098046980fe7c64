"""TV-L1's loops as Triton kernels: each works on all pixels of many pairs, and skips the pairs that are done.

Layouts, float32, each plane (B, H, W): `state` (2 sides, 6 planes u v p11 p12 p21 p22), `slopes` (ix, iy, rho,
1/|∇I|²), `smooth` (u, v after the median). A pair's current side is the parity of its `count` of iterations.
`partial` (B, tiles) holds the sums of |Δu|² by tile: every program of a pair adds them up in the same order, and so
comes to the same decision without atomics, without the host, and with the same bytes every time.
The types are the compiler's affair: they are not annotated.
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

import triton
import triton.language as tl

# Triton would make a constant of an argument that is 1, and compile again for it.
SIZES = ["height", "width", "pairs", "tiles"]


@triton.jit
def _active(partial, pair, tiles, stop, TILES: tl.constexpr):
    lane = tl.arange(0, TILES)
    return tl.sum(tl.load(partial + pair * tiles + lane, mask=lane < tiles, other=0.0)) > stop


@triton.jit
def _primal(field, dual, slopes, plane, at, x, y, width, inside, THETA: tl.constexpr, CLAMP: tl.constexpr):
    """Return u and v after the primal step, and their change, at the pixels `at`."""
    u = tl.load(field + at, mask=inside, other=0.0)
    v = tl.load(field + plane + at, mask=inside, other=0.0)
    ix = tl.load(slopes + at, mask=inside, other=0.0)
    iy = tl.load(slopes + plane + at, mask=inside, other=0.0)
    rho = tl.load(slopes + 2 * plane + at, mask=inside, other=0.0)
    inverse = tl.load(slopes + 3 * plane + at, mask=inside, other=0.0)
    f = -tl.minimum(tl.maximum((rho + ix * u + iy * v) * inverse, -CLAMP), CLAMP)
    left = inside & (x > 0)
    above = inside & (y > 0)
    across = tl.load(dual + at, mask=inside, other=0.0) - tl.load(dual + at - 1, mask=left, other=0.0)
    down = tl.load(dual + plane + at, mask=inside, other=0.0) - tl.load(
        dual + plane + at - width, mask=above, other=0.0
    )
    du = f * ix + THETA * (across + down)
    dual += 2 * plane
    across = tl.load(dual + at, mask=inside, other=0.0) - tl.load(dual + at - 1, mask=left, other=0.0)
    down = tl.load(dual + plane + at, mask=inside, other=0.0) - tl.load(
        dual + plane + at - width, mask=above, other=0.0
    )
    dv = f * iy + THETA * (across + down)
    return u + du, v + dv, du, dv


@triton.jit(do_not_specialize=SIZES)
def iterate(
    state, smooth, slopes, partial_in, partial_out, count_in, count_out, height, width, pairs, tiles, stop,
    FIRST: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
    THETA: tl.constexpr, TAUT: tl.constexpr, CLAMP: tl.constexpr,
):  # fmt: skip
    """One primal and one dual step from one side of `state` to the other; FIRST takes u and v from `smooth`.

    The dual step needs u at the right and lower neighbours: they are computed again rather than exchanged, so that
    one launch is one iteration.
    """
    tile = tl.program_id(0)
    pair = tl.program_id(1).to(tl.int64)
    count = tl.load(count_in + pair)
    if _active(partial_in, pair, tiles, stop, TILES):
        plane = pairs.to(tl.int64) * height * width
        start = pair * height * width
        here = state + (count % 2) * 6 * plane + start
        there = state + ((count + 1) % 2) * 6 * plane + start
        field = here
        if FIRST:
            field = smooth + start
        at = tile * BLOCK + tl.arange(0, BLOCK)
        x = at % width
        y = at // width
        inside = at < height * width
        right = inside & (x + 1 < width)
        below = inside & (y + 1 < height)
        dual = here + 2 * plane
        image = slopes + start
        u, v, du, dv = _primal(field, dual, image, plane, at, x, y, width, inside, THETA, CLAMP)
        u_right, v_right, _, _ = _primal(field, dual, image, plane, at + 1, x + 1, y, width, right, THETA, CLAMP)
        u_below, v_below, _, _ = _primal(field, dual, image, plane, at + width, x, y + 1, width, below, THETA, CLAMP)
        ux = tl.where(right, u_right - u, 0.0)
        uy = tl.where(below, u_below - u, 0.0)
        vx = tl.where(right, v_right - v, 0.0)
        vy = tl.where(below, v_below - v, 0.0)
        su = 1.0 / (1.0 + TAUT * tl.sqrt(ux * ux + uy * uy))
        sv = 1.0 / (1.0 + TAUT * tl.sqrt(vx * vx + vy * vy))
        tl.store(there + at, u, mask=inside)
        tl.store(there + plane + at, v, mask=inside)
        old = tl.load(dual + at, mask=inside, other=0.0)
        tl.store(there + 2 * plane + at, (old + TAUT * ux) * su, mask=inside)
        old = tl.load(dual + plane + at, mask=inside, other=0.0)
        tl.store(there + 3 * plane + at, (old + TAUT * uy) * su, mask=inside)
        old = tl.load(dual + 2 * plane + at, mask=inside, other=0.0)
        tl.store(there + 4 * plane + at, (old + TAUT * vx) * sv, mask=inside)
        old = tl.load(dual + 3 * plane + at, mask=inside, other=0.0)
        tl.store(there + 5 * plane + at, (old + TAUT * vy) * sv, mask=inside)
        moved = tl.sum(tl.where(inside, du * du + dv * dv, 0.0))
        tl.store(partial_out + pair * tiles + tile, moved)
        if tile == 0:
            tl.store(count_out + pair, count + 1)
    else:  # hand the decision on
        tl.store(partial_out + pair * tiles + tile, tl.load(partial_in + pair * tiles + tile))
        if tile == 0:
            tl.store(count_out + pair, count)


@triton.jit
def _sort(a, b):
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _sort5(a, b, c, d, e):
    a, b = _sort(a, b)
    d, e = _sort(d, e)
    c, e = _sort(c, e)
    c, d = _sort(c, d)
    b, e = _sort(b, e)
    a, d = _sort(a, d)
    a, c = _sort(a, c)
    b, d = _sort(b, d)
    b, c = _sort(b, c)
    return a, b, c, d, e


@triton.jit
def _merge(a0, a1, a2, a3, a4, b0, b1, b2, b3, b4):
    """Merge two sorted fives (Batcher's odd-even merge)."""
    o0, p = _sort(a0, b0)
    q, o5 = _sort(a4, b4)
    p, q = _sort(p, q)
    r, s = _sort(a2, b2)
    o1, o2 = _sort(r, p)
    o3, o4 = _sort(s, q)
    e0, e1 = _sort(a1, b1)
    e2, e3 = _sort(a3, b3)
    e1, e2 = _sort(e1, e2)
    o1, e0 = _sort(o1, e0)
    o2, e1 = _sort(o2, e1)
    o3, e2 = _sort(o3, e2)
    o4, e3 = _sort(o4, e3)
    return o0, o1, e0, o2, e1, o3, e2, o4, e3, o5


@triton.jit
def _column(field, x, y, height, width, inside):
    """Sorted column of five around y, edges repeated."""
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    a = tl.load(field + tl.maximum(y - 2, 0) * width + x, mask=inside, other=0.0)
    b = tl.load(field + tl.maximum(y - 1, 0) * width + x, mask=inside, other=0.0)
    c = tl.load(field + y * width + x, mask=inside, other=0.0)
    d = tl.load(field + tl.minimum(y + 1, height - 1) * width + x, mask=inside, other=0.0)
    e = tl.load(field + tl.minimum(y + 2, height - 1) * width + x, mask=inside, other=0.0)
    return _sort5(a, b, c, d, e)


@triton.jit(do_not_specialize=SIZES)
def median(state, smooth, partial, count, height, width, pairs, tiles, stop, BLOCK: tl.constexpr, TILES: tl.constexpr):
    """5×5 median of u (or v: the third grid axis) into `smooth`; the network is that of numba_kernels.median."""
    pair = tl.program_id(1).to(tl.int64)
    if _active(partial, pair, tiles, stop, TILES):
        plane = pairs.to(tl.int64) * height * width
        start = tl.program_id(2) * plane + pair * height * width
        field = state + (tl.load(count + pair) % 2) * 6 * plane + start
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = at % width
        y = at // width
        inside = at < height * width
        a0, a1, a2, a3, a4 = _column(field, x - 2, y, height, width, inside)
        b0, b1, b2, b3, b4 = _column(field, x - 1, y, height, width, inside)
        c0, c1, c2, c3, c4 = _column(field, x, y, height, width, inside)
        d0, d1, d2, d3, d4 = _column(field, x + 1, y, height, width, inside)
        e0, e1, e2, e3, e4 = _column(field, x + 2, y, height, width, inside)
        a0, a1, a2, a3, a4, a5, a6, a7, a8, a9 = _merge(a0, a1, a2, a3, a4, b0, b1, b2, b3, b4)
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 = _merge(c0, c1, c2, c3, c4, d0, d1, d2, d3, d4)
        l0, h0 = _sort(a0, c9)
        l1, h1 = _sort(a1, c8)
        l2, h2 = _sort(a2, c7)
        l3, h3 = _sort(a3, c6)
        l4, h4 = _sort(a4, c5)
        l5, h5 = _sort(a5, c4)
        l6, h6 = _sort(a6, c3)
        l7, h7 = _sort(a7, c2)
        l8, h8 = _sort(a8, c1)
        l9, h9 = _sort(a9, c0)
        _, _, m0, m1, m2 = _sort5(
            tl.maximum(l0, l5), tl.maximum(l1, l6), tl.maximum(l2, l7), tl.maximum(l3, l8), tl.maximum(l4, l9)
        )
        m3, m4, m5, _, _ = _sort5(
            tl.minimum(h0, h5), tl.minimum(h1, h6), tl.minimum(h2, h7), tl.minimum(h3, h8), tl.minimum(h4, h9)
        )
        low = tl.minimum(m5, tl.maximum(m4, e0))
        mid = tl.minimum(tl.maximum(m3, e1), tl.maximum(m2, e2))
        high = tl.minimum(tl.maximum(m1, e3), tl.maximum(m0, e4))
        tl.store(smooth + start + at, tl.minimum(low, tl.minimum(mid, high)), mask=inside)


@triton.jit
def _cubic(t, A: tl.constexpr):
    w0 = ((A * (t + 1.0) - 5.0 * A) * (t + 1.0) + 8.0 * A) * (t + 1.0) - 4.0 * A
    w1 = ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
    s = 1.0 - t
    w2 = ((A + 2.0) * s - (A + 3.0)) * s * s + 1.0
    return w0, w1, w2, 1.0 - w0 - w1 - w2


@triton.jit
def _line(image, x, y, w0, w1, w2, w3, height, width):
    """Four taps of row y around x, 0 outside."""
    inside = (y >= 0) & (y < height)
    at = image + y * width + x
    total = w0 * tl.load(at - 1, mask=inside & (x >= 1) & (x <= width), other=0.0)
    total += w1 * tl.load(at, mask=inside & (x >= 0) & (x < width), other=0.0)
    total += w2 * tl.load(at + 1, mask=inside & (x >= -1) & (x < width - 1), other=0.0)
    total += w3 * tl.load(at + 2, mask=inside & (x >= -2) & (x < width - 2), other=0.0)
    return total


@triton.jit
def _sample(image, x, y, w0, w1, w2, w3, v0, v1, v2, v3, height, width):
    return (
        v0 * _line(image, x, y - 1, w0, w1, w2, w3, height, width)
        + v1 * _line(image, x, y, w0, w1, w2, w3, height, width)
        + v2 * _line(image, x, y + 1, w0, w1, w2, w3, height, width)
        + v3 * _line(image, x, y + 2, w0, w1, w2, w3, height, width)
    )


@triton.jit(do_not_specialize=SIZES)
def warp(
    state, count, first, second, slope_x, slope_y, slopes, height, width, pairs,
    BLOCK: tl.constexpr, A: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """Sample I1, I1x and I1y at x + u, bicubic, 0 outside; fill `slopes`. Images are (B, H, W)."""
    pair = tl.program_id(1).to(tl.int64)
    plane = pairs.to(tl.int64) * height * width
    start = pair * height * width
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < height * width
    field = state + (tl.load(count + pair) % 2) * 6 * plane + start
    u = tl.load(field + at, mask=inside, other=0.0)
    v = tl.load(field + plane + at, mask=inside, other=0.0)
    # Beyond these bounds all taps are zeros, whatever the fraction.
    x = tl.minimum(tl.maximum((at % width).to(tl.float32) + u, -3.0), (width + 1).to(tl.float32))
    y = tl.minimum(tl.maximum((at // width).to(tl.float32) + v, -3.0), (height + 1).to(tl.float32))
    w0, w1, w2, w3 = _cubic(x - tl.floor(x), A)
    v0, v1, v2, v3 = _cubic(y - tl.floor(y), A)
    x0 = tl.floor(x).to(tl.int32)
    y0 = tl.floor(y).to(tl.int32)
    warped = _sample(second + start, x0, y0, w0, w1, w2, w3, v0, v1, v2, v3, height, width)
    ix = _sample(slope_x + start, x0, y0, w0, w1, w2, w3, v0, v1, v2, v3, height, width)
    iy = _sample(slope_y + start, x0, y0, w0, w1, w2, w3, v0, v1, v2, v3, height, width)
    norm = ix * ix + iy * iy
    rho = warped - ix * u - iy * v - tl.load(first + start + at, mask=inside, other=0.0)
    slopes += start
    tl.store(slopes + at, ix, mask=inside)
    tl.store(slopes + plane + at, iy, mask=inside)
    tl.store(slopes + 2 * plane + at, rho, mask=inside)
    tl.store(slopes + 3 * plane + at, tl.where(norm > FLAT, 1.0 / norm, 0.0), mask=inside)

"""TV-L1 for one frame pair as compiled loops: the numerics of OpenCV 5.0, most of the work in one fused sweep.

A level's state is an array of records, one an image row: `rows[y].u[x]`. The record's dtype makes the distance between
any two planes a constant, so that the compiler can prove the sweep free of aliasing and vectorise it; separate
arrays need more run-time checks than LLVM is willing to make. Image row 0 is `rows[LEAD_ROWS]`, pixel 0 is `[LEAD]`
(64 bytes in); what surrounds the pixels is zero unless a comment says otherwise.

Indices are unsigned: Numba's wrap-around for negative ones stops the vectoriser (8× slower). Arithmetic is strict
IEEE, no fastmath: every vector width gives the same bytes, so the CPU model need not be in a cache key.
All kernels stay in this one file: Numba's disk cache does not notice a change in a function called from another.
Their types are the compiler's affair: they are not annotated.
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

import os
from hashlib import sha256
from typing import Any

import numpy as np

from extractors.flow import tvl1
from extractors.flow.numba_cache import prepare

CACHED = prepare()

import numba  # noqa: E402  (after the cache folder is set)
from llvmlite import ir  # type: ignore[import-untyped]  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

U, F = np.uint64, np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
CLAMP, THETA, TAUT, FLAT = F(tvl1.CLAMP), F(tvl1.THETA), F(tvl1.TAUT), F(tvl1.FLAT)
ZOOM, STEP = F(tvl1.SOURCE_STEP), tvl1.SOURCE_STEP
A = F(tvl1.CUBIC_A)
EPSILON2 = tvl1.EPSILON**2
WARPS, OUTER, INNER = tvl1.WARPS, tvl1.OUTER, tvl1.INNER
MARGIN = 1.2  # how far above the stop the extrapolated error must be to run several iterations in one pass

PLANES = ("u", "v", "p11", "p12", "p21", "p22", "ix", "iy", "rho", "inv")
LEAD, LEAD_ROWS = U(16), U(2)
PAD = U(4)  # zeros around the image that the warp samples

config: Any = numba.config
if CACHED:
    config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # had numba been imported before


def _mangling_args(record: Any) -> tuple[str, tuple[str]]:
    return "Record", (sha256(record.name.encode()).hexdigest()[:32],)


# Numba names a compiled function after the types of its arguments, and a record type after the number of types that
# this process has met before (`Record.mangling_args` of Numba 0.68). So functions for two strides, compiled in two
# processes, could have one name, and a process that loaded both from disk ran one for the other and crashed. Here the
# name comes from the record's fields.
record_type: Any = numba.types.Record
record_type.mangling_args = property(_mangling_args)

jit: Any = numba.njit(nogil=True, cache=CACHED, error_model="numpy", boundscheck=False)


@jit
def sweep(rows, y, height, width, errors):
    """Do the primal step of image row y and the dual step of row y−2, and add |Δu|² to `errors`, column by column.

    Side by side because both only read what the other leaves alone, and the square roots of one hide the loads of
    the other. Sums by column keep the order of summation free of the vector width.
    """
    last = LEAD + width
    row = rows[y + LEAD_ROWS]
    above = rows[y + U(1)]
    dual = rows[y]
    below = rows[y + U(1)]
    for k in range((width + U(15)) // U(16) * U(16)):
        x = k + LEAD
        # Primal: f = clamp(−ρ/|∇I|², ±λθ); u += f·∇I + θ·div p, backward differences.
        ix = row.ix[x]
        iy = row.iy[x]
        u = row.u[x]
        v = row.v[x]
        f = (row.rho[x] + ix * u + iy * v) * row.inv[x]
        f = CLAMP if f < -CLAMP else (-CLAMP if f > CLAMP else -f)
        du = f * ix + THETA * (row.p11[x] - row.p11[x - U(1)] + (row.p12[x] - above.p12[x]))
        dv = f * iy + THETA * (row.p21[x] - row.p21[x - U(1)] + (row.p22[x] - above.p22[x]))
        row.u[x] = u + du
        row.v[x] = v + dv
        errors[k] += du * du + dv * dv
        # Dual: p ← (p + τ/θ·∇u) / (1 + τ/θ·|∇u|), forward differences.
        u = dual.u[x]
        v = dual.v[x]
        ux = dual.u[x + U(1)] - u
        uy = below.u[x] - u
        vx = dual.v[x + U(1)] - v
        vy = below.v[x] - v
        su = ONE / (ONE + TAUT * np.sqrt(ux * ux + uy * uy))
        sv = ONE / (ONE + TAUT * np.sqrt(vx * vx + vy * vy))
        dual.p11[x] = (dual.p11[x] + TAUT * ux) * su
        dual.p12[x] = (dual.p12[x] + TAUT * uy) * su
        dual.p21[x] = (dual.p21[x] + TAUT * vx) * sv
        dual.p22[x] = (dual.p22[x] + TAUT * vy) * sv
    # The column after the last repeats it, so that ∇u is 0 there; its own p stays 0.
    row.u[last] = row.u[last - U(1)]
    row.v[last] = row.v[last - U(1)]
    dual.p11[last] = ZERO
    dual.p12[last] = ZERO
    dual.p21[last] = ZERO
    dual.p22[last] = ZERO
    if y == U(1):  # the dual step has run over the row above the image: its p is 0
        for x in range(LEAD, last):
            dual.p12[x] = ZERO
            dual.p22[x] = ZERO
    if y + U(1) == height:  # the row below the last repeats it as well
        under = rows[y + U(3)]
        for x in range(LEAD, last + U(1)):
            under.u[x] = row.u[x]
            under.v[x] = row.v[x]


@jit
def iterate(rows, height, width, count, line, errors):
    """Run `count` iterations in one pass over memory; errors[j] is Σ|Δu|² of the j-th.

    Each iteration follows the one before two rows behind, where that one is done: the rows between stay in the L2
    cache, which a whole level does not.
    """
    for j in range(count):
        for x in range(width):
            line.errors[j, x] = ZERO
    for front in range(height + U(2) * count):
        for j in range(count):
            y = front - U(2) * j
            if front >= U(2) * j and y < height + U(2):
                sweep(rows, y, height, width, line.errors[j])
    for j in range(count):
        total = 0.0
        for x in range(width):
            total += line.errors[j, x]
        errors[j] = total


@jit
def copy_state(source, target, height):
    """Copy u, v and p, the first six planes of each row."""
    for y in range(height):
        for plane in range(6):
            row = source[y, plane]
            other = target[y, plane]
            for x in range(U(len(row))):
                other[x] = row[x]


@jit
def relax(rows, fields, height, width, stop, saved, line):
    """Iterate until Σ|Δu|² ≤ `stop`, at most INNER times; returns the last sum and the number of iterations.

    Far from the end, two or four iterations go in one pass. Where one of them unexpectedly was the last, the state
    from before the first such pass comes back and exactly as many are done singly: the result is that of single
    steps. (59 % of the iterations go in fours, 1 % are done again.)
    """
    errors = np.empty(4)
    error = np.inf
    before = np.inf
    done = 0
    kept = 0
    while error > stop and done < INNER:
        # The error falls more and more slowly, so extrapolating its last rate predicts the end too early.
        rate = min(error / before, 0.95) if done > 1 else 0.0
        steps = 1
        if kept or (error > 2 * stop and error * rate**8 > stop):  # keeping the state costs about an iteration
            if done + 4 <= INNER and error * rate**4 > MARGIN * stop:
                steps = 4
            elif done + 2 <= INNER and error * rate**2 > MARGIN * stop:
                steps = 2
        if steps > 1 and not kept:
            kept = done
            copy_state(fields[LEAD_ROWS:], saved, height)
        iterate(rows, height, width, U(steps), line, errors)
        needed = 1
        while needed < steps and errors[needed - 1] > stop:
            needed += 1
        done += needed
        if needed < steps:
            copy_state(saved, fields[LEAD_ROWS:], height)
            for _ in range(done - kept):
                iterate(rows, height, width, U(1), line, errors)
            return errors[0], done
        before = errors[steps - 2] if steps > 1 else error
        error = errors[steps - 1]
    return error, done


@jit
def resize(src, dst, height, width, new_height, new_width, step_y, step_x, scale, line):
    """Linear resize of src[:height, :width] into dst[:new_height, :new_width], times `scale`.

    As OpenCV's INTER_LINEAR: pixel centres, `step` source pixels a target pixel, edges clamped.
    """
    for x in range(new_width):
        at = max(F((x + 0.5) * step_x - 0.5), ZERO)
        line.column[x] = min(np.int32(at), np.int32(width - U(1)))
        line.row[x] = min(np.int32(at) + np.int32(1), np.int32(width - U(1)))
        line.weights[0, x] = at - np.floor(at)
    for y in range(new_height):
        at = max(F((y + 0.5) * step_y - 0.5), ZERO)
        f = at - np.floor(at)
        y0 = min(U(np.int32(at)), height - U(1))
        y1 = min(y0 + U(1), height - U(1))
        for x in range(width):
            line.weights[1, x] = (src[y0, x] * (ONE - f) + src[y1, x] * f) * scale
        for x in range(new_width):
            f = line.weights[0, x]
            dst[y, x] = line.weights[1, U(line.column[x])] * (ONE - f) + line.weights[1, U(line.row[x])] * f


@jit
def set_taps(image, taps, height, width):
    """Fill taps[y + PAD, x + PAD] with (I, Ix, Iy, 0) and a frame of zeros around.

    Central differences; on the border half the one-sided one.
    """
    for y in range(height + U(8)):
        line = taps[y]
        for x in range(width + U(8)):
            for k in range(U(4)):
                line[x, k] = ZERO
    for y in range(height):
        y0 = y - U(1) if y > U(0) else y
        y1 = min(y + U(1), height - U(1))
        for x in range(width):
            x0 = x - U(1) if x > U(0) else x
            x1 = min(x + U(1), width - U(1))
            taps[y + PAD, x + PAD, 0] = image[y, x]
            taps[y + PAD, x + PAD, 1] = HALF * (image[y, x1] - image[y, x0])
            taps[y + PAD, x + PAD, 2] = HALF * (image[y1, x] - image[y0, x])


@jit
def cubic(t):
    """Weights of the cubic (A = −0.75) at fraction t, for the taps at −1, 0, 1, 2."""
    w0 = ((A * (t + ONE) - F(5) * A) * (t + ONE) + F(8) * A) * (t + ONE) - F(4) * A
    w1 = ((A + TWO) * t - (A + F(3))) * t * t + ONE
    s = ONE - t
    w2 = ((A + TWO) * s - (A + F(3))) * s * s + ONE
    return w0, w1, w2, ONE - w0 - w1 - w2


@intrinsic
def sample(_context, taps, index, pitch, x0, x1, x2, x3, y0, y1, y2, y3):
    """Weighted sum of 4×4 taps of four floats each, as explicit vectors; returns the first three.

    `index`, `pitch`: of the first tap, and from row to row, in floats. Numba leaves LLVM's SLP vectoriser off, and
    the plain loops run four times slower (16 against 4 ns a pixel).
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        sixteen = ir.VectorType(ir.FloatType(), 16)

        def shuffle(vector: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(i32, len(lanes)), lanes)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        def vector(scalars: Any, lanes: list[int]) -> Any:
            four = ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
            for lane, scalar in enumerate(scalars):
                four = builder.insert_element(four, scalar, i32(lane))
            return shuffle(four, lanes)

        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        at, total = args[1], None
        for weight in args[7:]:  # over the rows, all sixteen floats of a row at once
            pointer = builder.bitcast(builder.gep(data, [at]), sixteen.as_pointer())
            term = builder.fmul(builder.load(pointer, align=4), vector([weight], [0] * 16))
            total = term if total is None else builder.fadd(total, term)
            at = builder.add(at, args[2])
        total = builder.fmul(total, vector(args[3:7], [lane // 4 for lane in range(16)]))
        for half in (8, 4):  # then the four taps of the summed row
            total = builder.fadd(shuffle(total, list(range(half))), shuffle(total, list(range(half, 2 * half))))
        floats = [builder.extract_element(total, i32(lane)) for lane in range(3)]
        return context.make_tuple(builder, signature.return_type, floats)

    u64, f32 = numba.types.uint64, numba.types.float32
    return numba.types.UniTuple(f32, 3)(taps, u64, u64, *[f32] * 8), generate


@jit
def warp(rows, image, taps, height, width, line):
    """Sample I1, I1x and I1y at x + u, bicubic, 0 outside; set ix, iy, 1/|∇I|² and ρ_c = I1w − ∇I·u − I0."""
    low = F(-3)
    right = F(width + U(1))
    bottom = F(height + U(1))
    pitch = U(taps.shape[1]) * U(4)
    for y in range(height):
        row = rows[y + LEAD_ROWS]
        source = image[y]
        for x in range(width):
            # Beyond these bounds all taps are zeros, whatever the fraction.
            px = min(max(F(np.int32(x)) + row.u[x + LEAD], low), right)
            py = min(max(F(np.int32(y)) + row.v[x + LEAD], low), bottom)
            fx = np.floor(px)
            fy = np.floor(py)
            line.column[x] = np.int32(fx) + np.int32(3)
            line.row[x] = np.int32(fy) + np.int32(3)
            w0, w1, w2, w3 = cubic(px - fx)
            line.weights[0, x] = w0
            line.weights[1, x] = w1
            line.weights[2, x] = w2
            line.weights[3, x] = w3
            w0, w1, w2, w3 = cubic(py - fy)
            line.weights[4, x] = w0
            line.weights[5, x] = w1
            line.weights[6, x] = w2
            line.weights[7, x] = w3
        for x in range(width):
            s0, s1, s2 = sample(
                taps,
                U(line.row[x]) * pitch + U(line.column[x]) * U(4),
                pitch,
                line.weights[0, x],
                line.weights[1, x],
                line.weights[2, x],
                line.weights[3, x],
                line.weights[4, x],
                line.weights[5, x],
                line.weights[6, x],
                line.weights[7, x],
            )
            row.rho[x + LEAD] = s0
            row.ix[x + LEAD] = s1
            row.iy[x + LEAD] = s2
        for k in range(width):
            x = k + LEAD
            ix = row.ix[x]
            iy = row.iy[x]
            norm = ix * ix + iy * iy
            row.inv[x] = ONE / norm if norm > FLAT else ZERO
            row.rho[x] = row.rho[x] - ix * row.u[x] - iy * row.v[x] - source[k]


@jit
def ascending(a, b):
    """Return the smaller, then the larger."""
    return (a, b) if a < b else (b, a)


@jit
def sort5(a, b, c, d, e):
    """Sort five (nine exchanges)."""
    a, b = ascending(a, b)
    d, e = ascending(d, e)
    c, e = ascending(c, e)
    c, d = ascending(c, d)
    b, e = ascending(b, e)
    a, d = ascending(a, d)
    a, c = ascending(a, c)
    b, d = ascending(b, d)
    b, c = ascending(b, c)
    return a, b, c, d, e


@jit
def merge3(a0, a1, a2, b0, b1, b2):
    """Merge two sorted triples (Batcher's odd-even merge)."""
    c0, c1 = ascending(a0, b0)
    d0, d1 = ascending(a2, b2)
    c1, d0 = ascending(c1, d0)
    e0, e1 = ascending(a1, b1)
    x1, x2 = ascending(e0, c1)
    x3, x4 = ascending(e1, d0)
    return c0, x1, x2, x3, x4, d1


@jit
def median(fields, plane, height, width, padded, line):
    """5×5 median of one plane, in place, edges repeated.

    Each column of five is sorted once, and merged once with its right neighbour; a window is two such pairs and a
    column: 58 exchanges a pixel instead of 99. Any median is exact, so the order of work changes no result.
    """
    for y in range(height + U(4)):
        source = fields[min(max(y, U(2)) - U(2), height - U(1)) + LEAD_ROWS, plane]
        edged = padded[y]
        for x in range(width):
            edged[x + U(2)] = source[x + LEAD]
        edged[0] = source[LEAD]
        edged[1] = source[LEAD]
        edged[width + U(2)] = edged[width + U(1)]
        edged[width + U(3)] = edged[width + U(1)]
    for y in range(height):
        r0 = padded[y]
        r1 = padded[y + U(1)]
        r2 = padded[y + U(2)]
        r3 = padded[y + U(3)]
        r4 = padded[y + U(4)]
        for x in range(width + U(4)):
            a, b, c, d, e = sort5(r0[x], r1[x], r2[x], r3[x], r4[x])
            line.columns[0, x] = a
            line.columns[1, x] = b
            line.columns[2, x] = c
            line.columns[3, x] = d
            line.columns[4, x] = e
        for x in range(width + U(3)):
            n = x + U(1)
            o0, o1, o2, o3, o4, o5 = merge3(
                line.columns[0, x],
                line.columns[2, x],
                line.columns[4, x],
                line.columns[0, n],
                line.columns[2, n],
                line.columns[4, n],
            )
            e0, e1 = ascending(line.columns[1, x], line.columns[1, n])
            e2, e3 = ascending(line.columns[3, x], line.columns[3, n])
            e1, e2 = ascending(e1, e2)
            line.pairs[0, x] = o0
            line.pairs[1, x], line.pairs[2, x] = ascending(o1, e0)
            line.pairs[3, x], line.pairs[4, x] = ascending(o2, e1)
            line.pairs[5, x], line.pairs[6, x] = ascending(o3, e2)
            line.pairs[7, x], line.pairs[8, x] = ascending(o4, e3)
            line.pairs[9, x] = o5
        target = fields[y + LEAD_ROWS, plane]
        for x in range(width):
            n = x + U(2)
            # The ten smallest and the ten largest of the twenty: each first rises, then falls (or the reverse), so
            # that comparing elements five apart leaves the five nearest to the middle.
            l0, h0 = ascending(line.pairs[0, x], line.pairs[9, n])
            l1, h1 = ascending(line.pairs[1, x], line.pairs[8, n])
            l2, h2 = ascending(line.pairs[2, x], line.pairs[7, n])
            l3, h3 = ascending(line.pairs[3, x], line.pairs[6, n])
            l4, h4 = ascending(line.pairs[4, x], line.pairs[5, n])
            l5, h5 = ascending(line.pairs[5, x], line.pairs[4, n])
            l6, h6 = ascending(line.pairs[6, x], line.pairs[3, n])
            l7, h7 = ascending(line.pairs[7, x], line.pairs[2, n])
            l8, h8 = ascending(line.pairs[8, x], line.pairs[1, n])
            l9, h9 = ascending(line.pairs[9, x], line.pairs[0, n])
            _, _, m0, m1, m2 = sort5(max(l0, l5), max(l1, l6), max(l2, l7), max(l3, l8), max(l4, l9))
            m3, m4, m5, _, _ = sort5(min(h0, h5), min(h1, h6), min(h2, h7), min(h3, h8), min(h4, h9))
            # m0..m5 are ranks 8..13 of the twenty; with the fifth column's five, rank 13 of 25.
            c = x + U(4)
            low = min(m5, max(m4, line.columns[0, c]))
            mid = min(max(m3, line.columns[1, c]), max(m2, line.columns[2, c]))
            high = min(max(m1, line.columns[3, c]), max(m0, line.columns[4, c]))
            target[x + LEAD] = min(low, min(mid, high))


@jit
def solve(first, second, flow, rows, fields, sizes, pyramid, dense, saved, taps, padded, lines):
    """TV-L1 from `first` to `second`, both (H, W) uint8, into `flow` (H, W, 2) float32; returns pixels × iterations.

    `fields` is `rows` seen as (H + 4, planes, stride). The rest is scratch of numba_tvl1.workspace.
    """
    height, width = sizes[0]
    line = lines[0]
    same = True
    for y in range(height):
        for x in range(width):
            pyramid[0, 0, y, x] = F(first[y, x])
            pyramid[1, 0, y, x] = F(second[y, x])
            same &= first[y, x] == second[y, x]
    if same:  # a repeated frame: ρ is 0 from the start, and so is the field that the whole way gives
        flow[:] = ZERO
        return 0.0
    count = len(sizes)
    for level in range(1, count):
        h, w = sizes[level - 1]
        for i in range(2):
            resize(
                pyramid[i, level - 1],
                pyramid[i, level, U(0) :, U(0) :],
                h,
                w,
                sizes[level, 0],
                sizes[level, 1],
                STEP,
                STEP,
                ONE,
                line,
            )
    work = 0.0
    for level in range(count - 1, -1, -1):
        h, w = sizes[level]
        if level < count - 1:
            ph, pw = sizes[level + 1]
            for i in range(2):
                for y in range(ph):
                    for x in range(pw):
                        dense[i, y, x] = fields[y + LEAD_ROWS, i, x + LEAD]
        for y in range(h + U(4)):  # of the image's planes only what surrounds the image: the rest is set by warp
            for plane in range(U(len(PLANES))):
                row = fields[y, plane]
                inside = plane > U(5) and y < h + LEAD_ROWS
                for x in range(LEAD + w if inside else U(0), U(len(row))):
                    row[x] = ZERO
        u = fields[LEAD_ROWS:, 0, LEAD:]
        v = fields[LEAD_ROWS:, 1, LEAD:]
        if level < count - 1:
            resize(dense[0], u, ph, pw, h, w, ph / h, pw / w, ZOOM, line)
            resize(dense[1], v, ph, pw, h, w, ph / h, pw / w, ZOOM, line)
        set_taps(pyramid[1, level], taps, h, w)
        stop = F(EPSILON2 * (h * w))
        for _ in range(WARPS):
            warp(rows, pyramid[0, level], taps, h, w, line)
            error = np.inf
            for _ in range(OUTER):
                if not error > stop:
                    break
                for plane in range(2):
                    median(fields, plane, h, w, padded, line)
                error, steps = relax(rows, fields, h, w, stop, saved, line)
                work += steps * h * w
    for y in range(height):
        for x in range(width):
            flow[y, x, 0] = fields[y + LEAD_ROWS, 0, x + LEAD]
            flow[y, x, 1] = fields[y + LEAD_ROWS, 1, x + LEAD]
    return work

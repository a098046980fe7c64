// TV-L1 with OpenCV's numerics, one thread block for each frame pair.
//
// A block takes a pair through all levels of the pyramid on its own, so a pair stops when it has converged, and no other
// pair waits for it. (Launches over all pairs would go on until the slowest one is done: pairs of one video differ
// fivefold.) Free blocks take the next pair from a queue.
//
// An iteration is a primal and a dual step (FLOW.md; Zach, Pock and Bischof 2007). A warp marches down a strip of 32
// columns and runs up to K iterations on the way: iteration j works j rows behind the row that is read, so that a pixel
// is read and written once for K iterations, and all else stays in registers. A step looks one pixel to each side, so the
// outer K lanes on both sides of a strip, and K rows above and below it, are computed twice. Neighbours in a row are
// exchanged by shuffles.
//
// The numbers of iterations are exactly those of single steps: when iteration j of a march turns out to be the last one,
// the march is made again from where it started, with j iterations.
//
// Each slot of scratch memory has 18 planes of the largest level: state (2 sides of u v p11 p12 p21 p22), slopes
// (ix iy rho 1/|grad I|^2), smooth (u v after the median), taps (I, Ix, Iy, 0 of the second frame, with a frame of zeros).
//
// The arithmetic is that of numba_kernels.py, operation by operation, so both give the same bytes. (Sums of |du|^2 alone are
// added up in another order, which matters only if one is within a few ulps of the threshold.)
//
// The host defines THREADS, BLOCKS_PER_CORE, LEVELS, PAD (zeros around the taps), THETA, TAUT, CLAMP, EPSILON2, FLAT, CUBIC_A,
// ZOOM, WARPS, OUTER and INNER.

#define K 4  // iterations in a march
#define WARPS_IN_BLOCK (THREADS / 32)
#define ALL 0xffffffffu

struct Pyramid {
    const float *images[LEVELS];  // (N+1, h, w) each, finest first
    int heights[LEVELS], widths[LEVELS];
    int levels, pairs;
};

struct Pixel {
    float u, v, p11, p12, p21, p22, ix, iy, rho, inv;
};

struct Place {  // where a lane stands
    int x, height, width;
    bool first, last, core;  // column 0; the last column; a column that its strip is responsible for
};

__device__ __forceinline__ float left(float value) { return __shfl_up_sync(ALL, value, 1); }
__device__ __forceinline__ float right(float value, int lanes = 1) { return __shfl_down_sync(ALL, value, lanes); }

// 1 / (1 + TAUT * sqrt(square)), each operation rounded as IEEE asks. The compiler's own root and reciprocal do the same,
// but branch for zeros, denormals and infinities. Those do not occur here: a square below the least one changes no bit of
// the sum, and the sum is at least 1.
__device__ __forceinline__ float shrinking(float square) {
    square = fmaxf(square, 1e-30f);
#ifdef __CUDA_ARCH__
    float root, inverse;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(square));
    root = square * inverse;
    root = fmaf(fmaf(-root, root, square), .5f * inverse, root);
    float sum = 1.f + TAUT * root;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(sum));
    return fmaf(inverse, -fmaf(sum, inverse, -1.f), inverse);
#else
    return 1.f / (1.f + TAUT * sqrtf(square));
#endif
}

// The primal step of row y, whose pixels are in `now`, and the dual step of the row above, which is in `above` (with its
// u and v after the primal step). Afterwards `now` is the finished row above, and `above` is row y. Returns |du|^2.
// The row above the image is all zeros, and stays so.
__device__ __forceinline__ float step(Pixel &now, Pixel &above, int y, const Place &at) {
    float l11 = left(now.p11), l21 = left(now.p21);
    l11 = at.first ? 0.f : l11;
    l21 = at.first ? 0.f : l21;
    float f = (now.rho + now.ix * now.u + now.iy * now.v) * now.inv;
    f = -fminf(fmaxf(f, -CLAMP), CLAMP);
    float du = f * now.ix + THETA * (now.p11 - l11 + (now.p12 - above.p12));
    float dv = f * now.iy + THETA * (now.p21 - l21 + (now.p22 - above.p22));
    float u = now.u + du, v = now.v + dv;

    bool between = unsigned(y - 1) < unsigned(at.height - 1);  // two rows of the image
    float ux = right(above.u) - above.u, vx = right(above.v) - above.v;
    float uy = u - above.u, vy = v - above.v;
    ux = at.last ? 0.f : ux;
    vx = at.last ? 0.f : vx;
    uy = between ? uy : 0.f;
    vy = between ? vy : 0.f;
    float su = shrinking(ux * ux + uy * uy), sv = shrinking(vx * vx + vy * vy);
    Pixel done = above;
    done.p11 = (above.p11 + TAUT * ux) * su;
    done.p12 = (above.p12 + TAUT * uy) * su;
    done.p21 = (above.p21 + TAUT * vx) * sv;
    done.p22 = (above.p22 + TAUT * vy) * sv;
    above = now;
    above.u = u;
    above.v = v;
    now = done;
    return du * du + dv * dv;
}

__device__ __forceinline__ Pixel read(const float *field, const float *dual, const float *slopes, int plane, int at) {
    Pixel p;
    p.u = field[at];
    p.v = field[plane + at];
    p.p11 = dual[at];
    p.p12 = dual[plane + at];
    p.p21 = dual[2 * plane + at];
    p.p22 = dual[3 * plane + at];
    p.ix = slopes[at];
    p.iy = slopes[plane + at];
    p.rho = slopes[2 * plane + at];
    p.inv = slopes[3 * plane + at];
    return p;
}

struct Planes {  // of one march: what it reads, and where it writes the six planes of the state
    const float *field, *dual, *slopes;
    float *target;
    int plane, height, width, cuts;
};

// COUNT iterations on the rows top <= y < bottom of one strip; adds sums of |du|^2 to `errors`, one for each iteration.
template <int COUNT>
__device__ __forceinline__ void march(const Planes &of, const Place &at, int top, int bottom, float *errors) {
    Pixel above[COUNT];
#pragma unroll
    for (int j = 0; j < COUNT; j++) above[j] = Pixel();
    int begin = max(top - COUNT, 0), end = bottom + COUNT, last = at.height - 1;
    int column = min(max(at.x, 0), at.width - 1);
    bool stores = at.core && at.x < at.width;
    Pixel next = read(of.field, of.dual, of.slopes, of.plane, begin * at.width + column);
#pragma unroll 2
    for (int row = begin; row < end; row++) {
        Pixel now = next;
        next = read(of.field, of.dual, of.slopes, of.plane, min(row + 1, last) * at.width + column);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            float moved = step(now, above[j], row - j, at);
            errors[j] += unsigned(row - j - top) < unsigned(bottom - top) ? moved : 0.f;
        }
        int y = row - COUNT;
        if (y >= top && stores) {
            float *to = of.target + y * at.width + at.x;
            to[0] = now.u;
            to[of.plane] = now.v;
            to[2 * of.plane] = now.p11;
            to[3 * of.plane] = now.p12;
            to[4 * of.plane] = now.p21;
            to[5 * of.plane] = now.p22;
        }
    }
}

// COUNT iterations on a whole level; totals[j] is the sum of |du|^2 of the j-th. Each warp takes strips, cut into pieces so
// that all warps have work. Sums go down the columns first, and are added up in one order.
template <int COUNT>
__device__ __noinline__ void iterate(const Planes &of, float *totals) {
    __shared__ float partial[WARPS_IN_BLOCK][COUNT];
    const int columns = 32 - 2 * COUNT;  // that a strip is responsible for
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int strips = (of.width + columns - 1) / columns, rows = (of.height + of.cuts - 1) / of.cuts;
    float errors[COUNT];
#pragma unroll
    for (int j = 0; j < COUNT; j++) errors[j] = 0.f;
    for (int task = warp; task < strips * of.cuts; task += WARPS_IN_BLOCK) {
        Place at;
        at.x = task % strips * columns - COUNT + lane;
        at.height = of.height;
        at.width = of.width;
        at.first = at.x == 0;
        at.last = at.x == of.width - 1;
        at.core = lane >= COUNT && lane < COUNT + columns;
        int top = task / strips * rows, bottom = min(top + rows, of.height);
        float moved[COUNT];
#pragma unroll
        for (int j = 0; j < COUNT; j++) moved[j] = 0.f;
        if (top < bottom) march<COUNT>(of, at, top, bottom, moved);
#pragma unroll
        for (int j = 0; j < COUNT; j++) errors[j] += at.core && at.x < of.width ? moved[j] : 0.f;
    }
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
        for (int lanes = 16; lanes; lanes /= 2) errors[j] += __shfl_xor_sync(ALL, errors[j], lanes);
        if (lane == 0) partial[warp][j] = errors[j];
    }
    __syncthreads();
    if (threadIdx.x < COUNT) {
        float total = 0.f;
        for (int w = 0; w < WARPS_IN_BLOCK; w++) total += partial[w][threadIdx.x];
        totals[threadIdx.x] = total;
    }
    __syncthreads();
}

// Into how many pieces to cut a level's strips: what gives the busiest warp the fewest rows.
__device__ int pieces(int height, int width) {
    int strips = (width + 31 - 2 * K) / (32 - 2 * K), best = 1, least = 0x7fffffff;
    for (int cuts = 1; cuts <= 8; cuts++) {
        int rounds = (strips * cuts + WARPS_IN_BLOCK - 1) / WARPS_IN_BLOCK;
        int rows = rounds * ((height + cuts - 1) / cuts + 2 * K);
        if (rows < least) {
            least = rows;
            best = cuts;
        }
    }
    return best;
}

__device__ __forceinline__ void order(float &a, float &b) {
    float low = fminf(a, b);
    b = fmaxf(a, b);
    a = low;
}

__device__ __forceinline__ void sort5(float &a, float &b, float &c, float &d, float &e) {
    order(a, b);
    order(d, e);
    order(c, e);
    order(c, d);
    order(b, e);
    order(a, d);
    order(a, c);
    order(b, d);
    order(b, c);
}

// The 5x5 median around a lane's column, edges repeated, from the sorted columns of five of this lane and the four to its
// right. The network is that of numba_kernels.median: each pair of columns is merged once, and a window is two such
// pairs and a column.
__device__ __forceinline__ float median25(float c0, float c1, float c2, float c3, float c4) {
    float n0 = right(c0), n1 = right(c1), n2 = right(c2), n3 = right(c3), n4 = right(c4);
    // Batcher's odd-even merge of the pair: first the odd ranks, then the even ones.
    float p[10];
    float o0 = c0, o1 = n0, o2 = c2, o3 = n2, o4 = c4, o5 = n4;
    order(o0, o1);       // c0 n0
    order(o4, o5);       // c4 n4
    float q = o1, r = o4;
    order(q, r);
    order(o2, o3);       // c2 n2
    float x1 = o2, x2 = q, x3 = o3, x4 = r;
    order(x1, x2);
    order(x3, x4);
    float e0 = c1, e1 = n1, e2 = c3, e3 = n3;
    order(e0, e1);
    order(e2, e3);
    order(e1, e2);
    p[0] = o0;
    p[1] = x1, p[2] = e0;
    order(p[1], p[2]);
    p[3] = x2, p[4] = e1;
    order(p[3], p[4]);
    p[5] = x3, p[6] = e2;
    order(p[5], p[6]);
    p[7] = x4, p[8] = e3;
    order(p[7], p[8]);
    p[9] = o5;
    // The ten smallest and the ten largest of two pairs: each is bitonic, so that comparing elements five apart leaves
    // the five nearest to the middle.
    float low[10], high[10];
#pragma unroll
    for (int i = 0; i < 10; i++) {
        low[i] = p[i];
        high[i] = right(p[9 - i], 2);
        order(low[i], high[i]);
    }
    float a[5], b[5];
#pragma unroll
    for (int i = 0; i < 5; i++) {
        a[i] = fmaxf(low[i], low[i + 5]);
        b[i] = fminf(high[i], high[i + 5]);
    }
    sort5(a[0], a[1], a[2], a[3], a[4]);
    sort5(b[0], b[1], b[2], b[3], b[4]);
    // a[2..4] and b[0..2] are the ranks 8 to 13 of the twenty; with the fifth column, the result is rank 13 of 25.
    c0 = right(c0, 4), c1 = right(c1, 4), c2 = right(c2, 4), c3 = right(c3, 4), c4 = right(c4, 4);
    float least = fminf(b[2], fmaxf(b[1], c0));
    float middle = fminf(fmaxf(b[0], c1), fmaxf(a[4], c2));
    float most = fminf(fmaxf(a[3], c3), fmaxf(a[2], c4));
    return fminf(least, fminf(middle, most));
}

// 5x5 median of u and v into `smooth`. A warp marches down 28 columns with five rows in registers.
__device__ __noinline__ void median(const float *field, float *smooth, int plane, int height, int width) {
    const int columns = 28, long_piece = 32;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int strips = (width + columns - 1) / columns, cuts = (height + long_piece - 1) / long_piece;
    for (int task = warp; task < 2 * strips * cuts; task += WARPS_IN_BLOCK) {
        int part = task % (strips * cuts), x = part % strips * columns + lane;
        const float *from = field + task / (strips * cuts) * plane + min(max(x - 2, 0), width - 1);
        float *to = smooth + task / (strips * cuts) * plane + x;
        int top = part / strips * long_piece, bottom = min(top + long_piece, height), last = height - 1;
        float r0 = from[max(top - 2, 0) * width], r1 = from[max(top - 1, 0) * width], r2 = from[top * width];
        float r3 = from[min(top + 1, last) * width];
        for (int y = top; y < bottom; y++) {
            float r4 = from[min(y + 2, last) * width];
            float a = r0, b = r1, c = r2, d = r3, e = r4;
            sort5(a, b, c, d, e);
            float found = median25(a, b, c, d, e);
            if (lane < columns && x < width) to[y * width] = found;
            r0 = r1, r1 = r2, r2 = r3, r3 = r4;
        }
    }
    __syncthreads();
}

// (I, Ix, Iy, 0) with a frame of zeros: central differences, on the border half the one-sided one.
__device__ __noinline__ void set_taps(const float *image, float4 *taps, int height, int width) {
    int pitch = width + 2 * PAD;
    for (int at = threadIdx.x; at < pitch * (height + 2 * PAD); at += THREADS) {
        int x = at % pitch - PAD, y = at / pitch - PAD;
        float4 tap = make_float4(0.f, 0.f, 0.f, 0.f);
        if (x >= 0 && x < width && y >= 0 && y < height) {
            const float *row = image + y * width;
            tap.x = row[x];
            tap.y = .5f * (row[min(x + 1, width - 1)] - row[max(x - 1, 0)]);
            tap.z = .5f * (image[min(y + 1, height - 1) * width + x] - image[max(y - 1, 0) * width + x]);
        }
        taps[at] = tap;
    }
    __syncthreads();
}

// Weights of the cubic at fraction t, for the taps at -1, 0, 1, 2.
__device__ __forceinline__ void cubic(float t, float *w) {
    const float A = CUBIC_A;
    float s = 1.f - t;
    w[0] = ((A * (t + 1.f) - 5.f * A) * (t + 1.f) + 8.f * A) * (t + 1.f) - 4.f * A;
    w[1] = ((A + 2.f) * t - (A + 3.f)) * t * t + 1.f;
    w[2] = ((A + 2.f) * s - (A + 3.f)) * s * s + 1.f;
    w[3] = 1.f - w[0] - w[1] - w[2];
}

// The weighted sum of four columns, in the order in which the CPU's vectors add.
__device__ __forceinline__ float across4(const float *columns, const float *w) {
    return (columns[0] * w[0] + columns[2] * w[2]) + (columns[1] * w[1] + columns[3] * w[3]);
}

// Sample I1, I1x and I1y at x + u, bicubic, 0 outside, and set the slopes.
__device__ __noinline__ void warp_image(
    const float *field, const float *first, const float4 *taps, float *slopes, int plane, int height, int width
) {
    int pitch = width + 2 * PAD;
    for (int at = threadIdx.x; at < height * width; at += THREADS) {
        float u = field[at], v = field[plane + at];
        // Beyond these bounds all taps are zeros, whatever the fraction.
        float x = fminf(fmaxf(float(at % width) + u, -3.f), float(width + 1));
        float y = fminf(fmaxf(float(at / width) + v, -3.f), float(height + 1));
        float x0 = floorf(x), y0 = floorf(y), across[4], down[4];
        cubic(x - x0, across);
        cubic(y - y0, down);
        const float4 *corner = taps + (int(y0) + PAD - 1) * pitch + int(x0) + PAD - 1;
        float image[4], slope_x[4], slope_y[4];  // the columns' sums
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float4 tap = corner[i];
            image[i] = down[0] * tap.x;
            slope_x[i] = down[0] * tap.y;
            slope_y[i] = down[0] * tap.z;
#pragma unroll
            for (int j = 1; j < 4; j++) {
                tap = corner[j * pitch + i];
                image[i] += down[j] * tap.x;
                slope_x[i] += down[j] * tap.y;
                slope_y[i] += down[j] * tap.z;
            }
        }
        float ix = across4(slope_x, across), iy = across4(slope_y, across);
        float norm = ix * ix + iy * iy;
        slopes[at] = ix;
        slopes[plane + at] = iy;
        slopes[2 * plane + at] = across4(image, across) - ix * u - iy * v - first[at];
        slopes[3 * plane + at] = norm > FLAT ? 1.f / norm : 0.f;
    }
    __syncthreads();
}

// Where a resized row or column lies in its source (pixel centres, as OpenCV's INTER_LINEAR): the two source rows or
// columns, edges repeated, and the weight of the second one.
__device__ __forceinline__ float source(int at, int length, int from, int &low, int &high) {
    float place = fmaxf(float((at + 0.5) * (double(from) / length) - 0.5), 0.f);
    low = min(int(place), from - 1);
    high = min(int(place) + 1, from - 1);
    return place - floorf(place);
}

// u and v of the level before, enlarged to this level.
__device__ __noinline__ void enlarge(
    const float *field, float *to, int plane, int old_height, int old_width, int height, int width
) {
    for (int at = threadIdx.x; at < 2 * height * width; at += THREADS) {
        int part = at / (height * width), pixel = at % (height * width), x0, x1, y0, y1;
        const float *from = field + part * plane;
        float fy = source(pixel / width, height, old_height, y0, y1);
        float fx = source(pixel % width, width, old_width, x0, x1);
        float a = (from[y0 * old_width + x0] * (1.f - fy) + from[y1 * old_width + x0] * fy) * ZOOM;
        float b = (from[y0 * old_width + x1] * (1.f - fy) + from[y1 * old_width + x1] * fy) * ZOOM;
        to[part * plane + pixel] = a * (1.f - fx) + b * fx;
    }
    __syncthreads();
}

struct Level {
    float *state[2], *slopes, *smooth;
    int plane, height, width, cuts;
};

// The number of iterations for the next march: as many as the last rate of convergence predicts, at most K.
__device__ __forceinline__ int predicted(float error, float before, float stop) {
    float rate = error / before;
    for (int j = 1; j < K; j++) {
        error *= rate;
        if (error <= stop) return j;
    }
    return K;
}

// Iterate until the sum of |du|^2 is at most `stop`, at most INNER times, from the smoothed field; flips `side`. `guess`:
// how many iterations the first march makes. Returns the last sum; `done` is the number of iterations.
__device__ float relax(const Level &level, int &side, float stop, int guess, int &done) {
    __shared__ float totals[K];
    const float *field = level.smooth;
    float before = 0.f;
    int count = guess;
    bool again = false;
    done = 0;
    while (true) {
        Planes of = {field, level.state[side] + 2 * level.plane, level.slopes, level.state[1 - side],
                     level.plane, level.height, level.width, level.cuts};
        if (count == 1) iterate<1>(of, totals);
        else if (count == 2) iterate<2>(of, totals);
        else if (count == 3) iterate<3>(of, totals);
        else iterate<4>(of, totals);
        if (!again) {
            before = count > 1 ? totals[count - 2] : 2.f * totals[0];
            int needed = 1;
            while (needed < count && totals[needed - 1] > stop) needed++;
            again = needed < count;
            if (again) {
                count = needed;
                continue;
            }
        }
        side = 1 - side;
        done += count;
        float error = totals[count - 1];
        if (!(error > stop) || again || done >= INNER) return error;
        field = level.state[side];
        count = min(predicted(error, before, stop), INNER - done);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_CORE)
tv_l1(Pyramid pyramid, float *scratch, long long slot, int plane, int *queue, float2 *out) {
    __shared__ int taken;
    float *mine = scratch + blockIdx.x * slot;
    Level level;
    level.state[0] = mine;
    level.state[1] = mine + 6 * plane;
    level.slopes = mine + 12 * plane;
    level.smooth = mine + 16 * plane;
    level.plane = plane;
    float4 *taps = reinterpret_cast<float4 *>(mine + 18 * plane);
    while (true) {
        __syncthreads();
        if (threadIdx.x == 0) taken = atomicAdd(queue, 1);
        __syncthreads();
        int pair = taken, side = 0, old_height = 0, old_width = 0;
        if (pair >= pyramid.pairs) return;
        for (int l = pyramid.levels - 1; l >= 0; l--) {
            int h = pyramid.heights[l], w = pyramid.widths[l];
            long long size = (long long)h * w;
            const float *first = pyramid.images[l] + pair * size, *second = first + size;
            level.height = h;
            level.width = w;
            level.cuts = pieces(h, w);
            if (old_height) enlarge(level.state[side], level.smooth, plane, old_height, old_width, h, w);
            for (int at = threadIdx.x; at < h * w; at += THREADS) {
                level.state[0][at] = old_height ? level.smooth[at] : 0.f;
                level.state[0][plane + at] = old_height ? level.smooth[plane + at] : 0.f;
                for (int k = 2; k < 6; k++) level.state[0][k * plane + at] = 0.f;
            }
            side = 0;
            set_taps(second, taps, h, w);
            float stop = EPSILON2 * float(h * w);
            int guess = K, done;
            for (int warp = 0; warp < WARPS; warp++) {
                warp_image(level.state[side], first, taps, level.slopes, plane, h, w);
                for (int outer = 0; outer < OUTER; outer++) {
                    median(level.state[side], level.smooth, plane, h, w);
                    float error = relax(level, side, stop, guess, done);
                    guess = min(max(done, 1), K);
                    if (!(error > stop)) break;
                }
            }
            old_height = h;
            old_width = w;
        }
        for (int at = threadIdx.x; at < old_height * old_width; at += THREADS)
            out[(long long)pair * old_height * old_width + at] =
                make_float2(level.state[side][at], level.state[side][plane + at]);
    }
}

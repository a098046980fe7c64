// What I3D does between its convolutions and products on a GPU: each kernel moves vectors of 16 bytes, once.
//
// A picture is (B, L, H, W, C), C in vectors; a part of its channels begins at a vector and has the picture's pitch. A ReLU
// is taken on the way, so no pass of its own is needed. For that, and for maxima, numbers are compared as integers: those
// that are not negative keep their order, and negative ones are below zero. A word holds one float32 (WIDE), or two
// float16 or bfloat16.
//
// The host defines THREADS, and WIDE for float32.

#ifdef WIDE
__device__ __forceinline__ int larger(int a, int b) { return max(a, b); }
#else
__device__ __forceinline__ int larger(int a, int b) { return int(__vmaxs2(unsigned(a), unsigned(b))); }
#endif

__device__ __forceinline__ int4 larger(int4 a, int4 b) {
    return make_int4(larger(a.x, b.x), larger(a.y, b.y), larger(a.z, b.z), larger(a.w, b.w));
}

// Max pooling of ReLU(x): (B, L, H, W, C) -> (B, L', H', W', C). Windows begin `before` the picture; outside are zeros.
struct Pool {
    int frames, height, width, vectors;  // of the source
    int steps, rows, columns;            // of the target
    int kernel[3], stride[3], before[3];
    long long total;  // vectors of the target
};

extern "C" __global__ void pool(const int4 *source, int4 *target, Pool of) {
    long long at = blockIdx.x * (long long)THREADS + threadIdx.x;
    if (at >= of.total) return;
    int vector = at % of.vectors;
    long long pixel = at / of.vectors;
    int column = pixel % of.columns * of.stride[2] - of.before[2];
    pixel /= of.columns;
    int row = pixel % of.rows * of.stride[1] - of.before[1];
    pixel /= of.rows;
    int frame = pixel % of.steps * of.stride[0] - of.before[0];
    long long batch = pixel / of.steps;
    int4 found = make_int4(0, 0, 0, 0);
    for (int t = max(frame, 0); t < min(frame + of.kernel[0], of.frames); t++)
        for (int y = max(row, 0); y < min(row + of.kernel[1], of.height); y++)
            for (int x = max(column, 0); x < min(column + of.kernel[2], of.width); x++)
                found = larger(found, source[(((batch * of.frames + t) * of.height + y) * of.width + x) * of.vectors + vector]);
    target[at] = found;
}

// ReLU of some channels of a picture, with the frames of each window in time joined along the channels:
// (B, L, pixels, C) -> (B, L', pixels, k·C). With a kernel of 1 it copies, to any place among the target's channels.
struct Join {
    int frames, pixels, vectors;  // of the source; `vectors`: those that are taken
    int pitch, first;             // vectors of a source's pixel, and the first that is taken
    int steps, kernel, stride, before;
    int target_pitch, target_first;
    long long total;  // vectors that are written
};

extern "C" __global__ void join(const int4 *source, int4 *target, Join of) {
    long long at = blockIdx.x * (long long)THREADS + threadIdx.x;
    if (at >= of.total) return;
    int written = of.kernel * of.vectors, vector = at % written;
    long long place = at / written;
    int pixel = place % of.pixels;
    long long step = place / of.pixels;
    int frame = int(step % of.steps) * of.stride - of.before + vector / of.vectors;
    int4 found = make_int4(0, 0, 0, 0);
    if (frame >= 0 && frame < of.frames) {
        long long from = (step / of.steps * of.frames + frame) * of.pixels + pixel;
        found = larger(found, source[from * of.pitch + of.first + vector % of.vectors]);
    }
    target[place * of.target_pitch + of.target_first + vector] = found;
}

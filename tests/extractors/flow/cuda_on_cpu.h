// Runs a CUDA kernel on the CPU, one block after another, so that its arithmetic can be tested without a GPU. Each thread of
// a block is a context of its own, which gives way to the next one where it waits: at __syncthreads for the whole block, at a
// shuffle for its warp.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

using std::max;
using std::min;

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct Index {
    int x;
};
static Index threadIdx, blockIdx;

namespace emulator {
struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    long waits_block = 0, waits_warp = 0;  // how often it has come to a barrier
    int parity = 0;
    bool ended = false;
};
static std::vector<Thread> threads;
static std::vector<float> posted[2];
static ucontext_t home;
static std::function<void()> body;

static Thread &self() { return threads[threadIdx.x]; }

static void give_way() {
    int me = threadIdx.x;
    swapcontext(&threads[me].context, &home);
    threadIdx.x = me;
}

static void enter() {
    body();
    self().ended = true;
    swapcontext(&self().context, &home);
}

// Wait until the threads first <= t < last have come as often as this one.
static void wait(long Thread::*count, int first, int last) {
    long mine = ++(self().*count);
    for (int t = first; t < last; t++)
        while (threads[t].*count < mine) {
            if (threads[t].ended) {
                fprintf(stderr, "a thread ended while others wait for it\n");
                abort();
            }
            give_way();
        }
}

static void run(int blocks, int count, std::function<void()> kernel) {
    body = kernel;
    for (int b = 0; b < blocks; b++) {
        blockIdx.x = b;
        threads = std::vector<Thread>(count);
        posted[0].assign(count, 0.f);
        posted[1].assign(count, 0.f);
        for (auto &thread : threads) {
            thread.stack.resize(64 << 10);
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.data();
            thread.context.uc_stack.ss_size = thread.stack.size();
            thread.context.uc_link = &home;
            makecontext(&thread.context, enter, 0);
        }
        for (bool alive = true; alive;) {
            alive = false;
            for (int t = 0; t < count; t++) {
                if (threads[t].ended) continue;
                alive = true;
                threadIdx.x = t;
                swapcontext(&home, &threads[t].context);
            }
        }
    }
}

static float exchange(float value, int from, bool inside) {
    Thread &thread = self();
    int me = threadIdx.x, warp = me / 32 * 32;
    std::vector<float> &slots = posted[thread.parity ^= 1];
    slots[me] = value;
    wait(&Thread::waits_warp, warp, warp + 32);
    return slots[inside ? warp + from : me];
}
}  // namespace emulator

static void __syncthreads() { emulator::wait(&emulator::Thread::waits_block, 0, int(emulator::threads.size())); }
static float __shfl_up_sync(unsigned, float value, int by) {
    int lane = threadIdx.x % 32 - by;
    return emulator::exchange(value, lane, lane >= 0);
}
static float __shfl_down_sync(unsigned, float value, int by) {
    int lane = threadIdx.x % 32 + by;
    return emulator::exchange(value, lane, lane < 32);
}
static float __shfl_xor_sync(unsigned, float value, int by) { return emulator::exchange(value, threadIdx.x % 32 ^ by, true); }
static int atomicAdd(int *at, int by) {
    int old = *at;
    *at += by;
    return old;
}

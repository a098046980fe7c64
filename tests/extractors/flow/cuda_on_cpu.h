// Runs a CUDA kernel on the CPU, one block after another, so that its arithmetic can be tested without a GPU. Each thread of
// a block is a context of its own, which gives way to the next one where it waits: at __syncthreads for the whole block, at a
// shuffle for its warp. Between two waits the threads run one after another: `backwards` turns their order around, so that a
// result that depends on it (a wait is missing) comes out different.
#include <setjmp.h>
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
#define __noinline__
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
struct alignas(16) int4 {
    int x, y, z, w;
};
static int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
// The larger of two pairs of signed 16-bit numbers.
static unsigned __vmaxs2(unsigned a, unsigned b) {
    short low = max(short(a), short(b)), high = max(short(a >> 16), short(b >> 16));
    return unsigned(static_cast<unsigned short>(high)) << 16 | static_cast<unsigned short>(low);
}
struct Index {
    int x;
};
static Index threadIdx, blockIdx;

namespace emulator {
struct Barrier {
    int size = 0, arrived = 0;
    long generation = 0;
};
struct Thread {
    ucontext_t context;
    jmp_buf place;
    std::vector<char> stack;
    const Barrier *waits = nullptr;
    long since = 0;
    int parity = 0;
    bool begun = false, ended = false;
};
static std::vector<Thread> threads;
static std::vector<Barrier> warps;
static Barrier block;
static std::vector<double> posted[2];  // a float stays what it is
static ucontext_t start;
static jmp_buf home;
static std::function<void()> body;
static bool backwards = false;

static Thread &self() { return threads[threadIdx.x]; }

static void enter() {
    body();
    self().ended = true;
    _longjmp(home, 1);
}

// The last thread that comes lets the others go on. (A jump costs far less than swapcontext, which asks the system.)
static void wait(Barrier &barrier) {
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    Thread &me = self();
    me.waits = &barrier;
    me.since = barrier.generation;
    if (!_setjmp(me.place)) _longjmp(home, 1);
}

static void resume(Thread &thread) {
    thread.waits = nullptr;
    if (_setjmp(home)) return;
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    setcontext(&thread.context);
}

static void run(int blocks, int count, std::function<void()> kernel) {
    body = kernel;
    for (int b = 0; b < blocks; b++) {
        blockIdx.x = b;
        threads = std::vector<Thread>(count);
        warps.assign(count / 32, Barrier{32});
        block = Barrier{count};
        posted[0].assign(count, 0.);
        posted[1].assign(count, 0.);
        for (auto &thread : threads) {
            thread.stack.resize(64 << 10);
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.data();
            thread.context.uc_stack.ss_size = thread.stack.size();
            makecontext(&thread.context, enter, 0);
        }
        while (true) {
            int ended = 0;
            bool moved = false;
            for (int turn = 0; turn < count; turn++) {
                int t = backwards ? count - 1 - turn : turn;
                Thread &thread = threads[t];
                ended += thread.ended;
                if (thread.ended || (thread.waits && thread.waits->generation == thread.since)) continue;
                moved = true;
                threadIdx.x = t;
                resume(thread);
            }
            if (ended == count) break;
            if (!moved) {
                fprintf(stderr, "all threads wait\n");
                abort();
            }
        }
    }
}

template <typename Value>
static Value exchange(Value value, int from, bool inside) {
    Thread &thread = self();
    int me = threadIdx.x, warp = me / 32 * 32;
    std::vector<double> &slots = posted[thread.parity ^= 1];
    slots[me] = value;
    wait(warps[me / 32]);
    return Value(slots[inside ? warp + from : me]);
}
}  // namespace emulator

static void __syncthreads() { emulator::wait(emulator::block); }
template <typename Value>
static Value __shfl_up_sync(unsigned, Value value, int by) {
    int lane = threadIdx.x % 32 - by;
    return emulator::exchange(value, lane, lane >= 0);
}
template <typename Value>
static Value __shfl_down_sync(unsigned, Value value, int by) {
    int lane = threadIdx.x % 32 + by;
    return emulator::exchange(value, lane, lane < 32);
}
template <typename Value>
static Value __shfl_xor_sync(unsigned, Value value, int by) {
    return emulator::exchange(value, threadIdx.x % 32 ^ by, true);
}
static int atomicAdd(int *at, int by) {
    int old = *at;
    *at += by;
    return old;
}

// What feed_forward.cu asks of a Hopper GPU, on a CPU: copies, barriers, and the matrix units' reading of shared memory, as
// NVIDIA's PTX manual describes their descriptors, swizzle and registers. All of it is done at once instead of in the
// background, so that a missing fence or wait goes unnoticed. NUMBER is defined before: Half or BFloat16.
#include <condition_variable>
#include <map>
#include <mutex>
#include "host.h"

static Index gridDim, blockDim;

static unsigned shared_address(const void* at) { return unsigned((const char*)at - memory); }

struct Barrier {
    int arrivals, pending, bytes = 0;
    unsigned phase = 0;
};
static std::map<unsigned, Barrier> barriers;
static std::mutex mutex;
static std::condition_variable changed;

static void advance(Barrier& barrier) {
    if (barrier.pending || barrier.bytes) return;
    barrier.pending = barrier.arrivals;
    barrier.phase++;
    changed.notify_all();
}
static void barrier_begin(unsigned at, int arrivals) { barriers[at] = {arrivals, arrivals}; }
static void barriers_begun() {}
static void barrier_expect(unsigned at, int bytes) {
    std::lock_guard lock(mutex);
    barriers[at].bytes += bytes;
    barriers[at].pending--;
    advance(barriers[at]);
}
static void barrier_arrive(unsigned at) {
    std::lock_guard lock(mutex);
    barriers[at].pending--;
    advance(barriers[at]);
}
static void barrier_wait(unsigned at, unsigned parity) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return barriers[at].phase % 2 != parity; });
}
static void bulk_copy(unsigned to, const void* from, int bytes, unsigned at) {
    std::memcpy(memory + to, from, bytes);
    std::lock_guard lock(mutex);
    barriers[at].bytes -= bytes;
    advance(barriers[at]);
}

template <int BYTES>
static void piece_copy(unsigned to, const void* from, bool there) {
    if (there) std::memcpy(memory + to, from, BYTES);
    else std::memset(memory + to, 0, BYTES);
}
static void pieces_wait() {}
static void show_matrix_units() {}
static void fewer_registers() {}
static void more_registers() {}
static void products_begin() {}
static void products_end() {}
static void into_cache(const void*) {}
template <int N>
static void hold(float (&)[N]) {}

// 128 threads each; what they exchange is theirs alone.
static std::unique_ptr<std::barrier<>> groups[4];
static unsigned exchanged[4][128][4];
static void group_wait(int group) { groups[group]->arrive_and_wait(); }

// Warps go together there.
template <int N>
static void products_wait() {
    group_wait(threadIdx.x / 128);
}

// Element k of row r of the matrix that a descriptor means: K-major, 128-byte or 64-byte swizzle.
template <class Type>
static float element(unsigned long long descriptor, int row, int k) {
    const unsigned start = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    const int kind = descriptor >> 62;
    if (kind != 1 && kind != 2) return NAN;
    unsigned at = start + row / 8 * stride + row % 8 * (kind == 1 ? 128 : 64) + k * 2;
    at ^= (at >> 7 & (kind == 1 ? 7 : 3)) << 4;
    unsigned short bits;
    std::memcpy(&bits, memory + at, 2);
    return Type::scalar(bits);
}

// Row and column of a thread's number i of a 64 x N sum.
static int row_of(int i) { return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + i % 4 / 2 * 8; }
static int column_of(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

template <int N>
static void product_up(float (&sum)[N], unsigned long long a, unsigned long long b) {
    for (int i = 0; i < N; i++) {
        float value = sum[i];
        for (int k = 0; k < 16; k++) value += element<NUMBER>(a, row_of(i), k) * element<NUMBER>(b, column_of(i), k);
        sum[i] = value;
    }
}

template <int N>
static void product_down(
    float (&sum)[N], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned long long b
) {
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    const unsigned own[4] = {a0, a1, a2, a3};
    group_wait(group);
    std::memcpy(exchanged[group][thread], own, sizeof own);
    group_wait(group);
    for (int i = 0; i < N; i++) {
        float value = sum[i];
        for (int k = 0; k < 16; k++) {
            const unsigned bits = exchanged[group][thread / 4 * 4 + k % 8 / 2][k / 8 * 2 + i % 4 / 2];
            value += NUMBER::scalar(k % 2 ? bits >> 16 : bits & 0xffff) * element<NUMBER>(b, column_of(i), k);
        }
        sum[i] = value;
    }
}

template <class Kernel>
static void launch_hopper(unsigned blocks, unsigned threads, Kernel kernel) {
    gridDim = {blocks, 1};
    blockDim = {threads, 1};
    for (unsigned x = 0; x < blocks; x++) {
        blockIdx = {x, 0};
        barriers.clear();
        for (auto& group : groups) group = std::make_unique<std::barrier<>>(128);
        run_block(threads, kernel);
    }
}

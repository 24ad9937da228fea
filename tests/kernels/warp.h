// The matrix units' product of a warp, on a CPU, as NVIDIA's PTX manual gives its registers. NUMBER is defined before.
#include "host.h"

static std::unique_ptr<std::barrier<>> warps[32];
static unsigned sent[32][32][6];

// sum (16 x 8) += a (16 x 16) b (16 x 8).
static void product(float (&sum)[4], const unsigned (&a)[4], uint2 b) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned own[6] = {a[0], a[1], a[2], a[3], b.x, b.y};
    warps[warp]->arrive_and_wait();
    std::memcpy(sent[warp][lane], own, sizeof own);
    warps[warp]->arrive_and_wait();
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            const unsigned left = sent[warp][row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8];
            const unsigned right = sent[warp][column * 4 + k % 8 / 2][4 + k / 8];
            const int shift = k % 2 * 16;
            sum[i] += NUMBER::scalar(left >> shift & 0xffff) * NUMBER::scalar(right >> shift & 0xffff);
        }
    }
}

template <class Kernel>
static void launch_warps(unsigned blocks, unsigned threads, Kernel kernel) {
    for (unsigned x = 0; x < blocks; x++) {
        blockIdx = {x, 0};
        for (auto& warp : warps) warp = std::make_unique<std::barrier<>>(32);
        run_block(threads, kernel);
    }
}

// The ConvFFN after its depthwise convolution: 1x1 up, GELU, 1x1 down and residual, in one launch, for Hopper.
//
// A group of four warps has 64 pixels. Its first product has a block of hidden channels at a time, with pixels and
// weights in shared memory and the sums in registers. GELU of these sums is the left side of the second product, and
// stays in registers. The second product of a block runs while GELU of the next is computed. The groups of a thread
// block share only the weights. (Running the product of one group during GELU of another was not faster.)
//
// The bulk copy engine loads packed weights into slots in shared memory: all of them once if they fit (RESIDENT), else
// in turns through SLOTS, fetched by an additional group. A slot has the weights up or down of a block, in the order in
// which they are needed: up 0, up 1, down 0, up 2, down 1, ..., down of the last two.
//
// Weights up are rows of 128 bytes, hidden channels, 64 channels of the map after 64; down they are WIDTH rows, of 64 bytes
// where BLOCK is 32. Pieces of 16 bytes are exchanged as the matrix units need it. The channels down are in the order in
// which a thread gets four in a row of each 16. fastvit/kernels/inference/feed_forward_cuda.py packs the weights.
//
// CHANNELS, BLOCK, BLOCKS, GROUPS, SLOTS, BUFFERS and RESIDENT are compile-time constants.

constexpr int STEPS = (CHANNELS + 15) / 16;    // of a product over the map's channels, 16 each
constexpr int CHUNKS = (STEPS + 3) / 4;        // of 64 channels
constexpr int WIDTH = (CHANNELS + 7) / 8 * 8;  // channels of the second product
constexpr int HALVES = (WIDTH + 255) / 256;    // of it: an instruction has up to 256
constexpr int PART = WIDTH / HALVES;
constexpr int ROW = 128;                       // bytes
constexpr int SHORT = BLOCK > 32 ? 128 : 64;   // bytes of a row of the second product's weights
constexpr int PIXELS = 64;                     // of a group
constexpr int MAP = CHUNKS * PIXELS * ROW;     // bytes of a group's pixels
constexpr int UP = CHUNKS * BLOCK * ROW, DOWN = WIDTH * SHORT;
constexpr int SLOT = ((UP > DOWN ? UP : DOWN) + 1023) / 1024 * 1024; // bytes; the exchange needs this alignment
constexpr int PIECE = CHANNELS % 8 ? 8 : 16;   // bytes of a map that are copied at once
constexpr int PIECES = CHANNELS * 2 / PIECE;   // of a pixel

// Offsets into shared memory.
constexpr int WEIGHTS = GROUPS * BUFFERS * MAP;
constexpr int BIASES = WEIGHTS + SLOTS * SLOT; // of the first product
constexpr int FULL = BIASES + BLOCKS * BLOCK * 4; // a barrier a slot
constexpr int EMPTY = FULL + 8 * SLOTS;

#ifndef HOST
static __device__ unsigned shared_address(const void* at) { return unsigned(__cvta_generic_to_shared(at)); }

static __device__ void barrier_begin(unsigned barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

static __device__ void barriers_begun() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

static __device__ void barrier_expect(unsigned barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

static __device__ void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

static __device__ void barrier_wait(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "AGAIN:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra AGAIN;\n"
        "DONE:\n"
        "}" ::"r"(barrier), "r"(parity) : "memory");
}

static __device__ void bulk_copy(unsigned to, const void* from, int bytes, unsigned barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
        "r"(bytes), "r"(barrier)
        : "memory");
}

// Copies zeros for pixels outside the map.
template <int BYTES>
static __device__ void piece_copy(unsigned to, const void* from, bool there) {
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(there ? 8 : 0) : "memory");
    }
}

static __device__ void pieces_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Makes ordinary stores visible to the matrix units.
static __device__ void show_matrix_units() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

static __device__ void group_wait(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }

static __device__ void into_cache(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

static __device__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

static __device__ void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most so many groups of products are still running.
template <int N>
static __device__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Registers that the compiler may not read before this point.
template <int N>
static __device__ void hold(float (&values)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(values[i])::"memory");
}

static __device__ void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 24;"); }
static __device__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(GROUPS > 2 ? 160 : 240));
}
#endif

// Descriptor of a matrix of rows of 128 or 64 bytes, swizzled, 8 rows after 8. An offset may be added, in units of 16
// bytes.
template <int BYTES>
static __device__ u64 matrix(unsigned address) {
    return u64((address & 0x3ffff) >> 4) | u64(8 * BYTES / 16) << 32 | u64(BYTES == 128 ? 1 : 2) << 62;
}

// Loop of a group over its pixels.
struct Group {
    const unsigned short* x;
    const float* bias;
    const unsigned short* residual;
    unsigned short* y;
    long long rows;
    char* memory;
    unsigned shared;
    int group, thread, lane;

    // Slot for an index in the sequence of all slots that are ever filled.
    __device__ int slot(unsigned sequence) const { return RESIDENT ? int(sequence % (2 * BLOCKS)) : int(sequence % SLOTS); }

    __device__ void wait_for(unsigned sequence) const {
        barrier_wait(shared + FULL + 8 * slot(sequence), RESIDENT ? 0 : sequence / SLOTS & 1);
    }

    __device__ void release(unsigned sequence) const {
        if (RESIDENT) return;
        if (lane == 0) barrier_arrive(shared + EMPTY + 8 * slot(sequence));
        __syncwarp();
    }

    __device__ void load(int buffer, long long row) const {
        const unsigned to = shared + (group * BUFFERS + buffer) * MAP;
#pragma unroll 4
        for (int i = thread; i < PIXELS * PIECES; i += 128) {
            const int pixel = i / PIECES, at = i % PIECES * PIECE;
            const int piece = (at % ROW / 16) ^ (pixel & 7);
            const bool there = row + pixel < rows;
            piece_copy<PIECE>(
                to + at / ROW * (PIXELS * ROW) + pixel * ROW + piece * 16 + at % 16,
                (const char*)x + (there ? row + pixel : 0) * (2 * CHANNELS) + at, there);
        }
    }

    // The residual's pixels come from the L2 cache when they are added.
    __device__ void prefetch(long long row) const {
        for (int i = thread; i < PIXELS * CHANNELS / 64; i += 128) {
            const long long at = row * CHANNELS + i * 64;
            if (at < rows * CHANNELS) into_cache(residual + at);
        }
    }

    // Initial values of the sums of a block.
    __device__ __forceinline__ void begin(float (&sum)[BLOCK / 2], int block) const {
        const float2* biases = (const float2*)(memory + BIASES) + block * (BLOCK / 2) + lane % 4;
#pragma unroll
        for (int j = 0; j < BLOCK / 8; j++) {
            const float2 b = biases[4 * j];
            sum[4 * j] = sum[4 * j + 2] = b.x;
            sum[4 * j + 1] = sum[4 * j + 3] = b.y;
        }
    }

    // Begin the first product of a block.
    __device__ __forceinline__ void up(float (&sum)[BLOCK / 2], unsigned map, unsigned sequence) const {
        const u64 pixels = matrix<ROW>(map), weights = matrix<ROW>(shared + WEIGHTS + slot(sequence) * SLOT);
        products_begin();
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            const int step = k % 4 * 32;
            product_up(
                sum, pixels + (k / 4 * (PIXELS * ROW) + step) / 16, weights + (k / 4 * (BLOCK * ROW) + step) / 16);
        }
        products_end();
    }

    // Begin the second product of a block.
    __device__ __forceinline__ void down(
        float (&total)[HALVES][PART / 2], const unsigned (&hidden)[BLOCK / 4], unsigned sequence
    ) const {
        const u64 weights = matrix<SHORT>(shared + WEIGHTS + slot(sequence) * SLOT);
        products_begin();
#pragma unroll
        for (int k = 0; k < BLOCK / 16; k++)
#pragma unroll
            for (int half = 0; half < HALVES; half++)
                product_down(
                    total[half], hidden[4 * k], hidden[4 * k + 1], hidden[4 * k + 2], hidden[4 * k + 3],
                    weights + (half * (PART * SHORT) + k * 32) / 16);
        products_end();
    }

    static __device__ __forceinline__ void activate(float (&sum)[BLOCK / 2]) {
        hold(sum);
#pragma unroll
        for (int i = 0; i < BLOCK / 2; i++) sum[i] = gelu(sum[i]);
    }

    // A block as the second product takes it: a thread has of each row the same columns of both products.
    static __device__ __forceinline__ void take(unsigned (&hidden)[BLOCK / 4], float (&sum)[BLOCK / 2]) {
        hold(sum);  // until here the matrix units read what is overwritten
#pragma unroll
        for (int i = 0; i < BLOCK / 4; i++) hidden[i] = Number::packed(make_float2(sum[2 * i], sum[2 * i + 1]));
    }

    // Biases and residuals, and 8 bytes of each row at a time.
    __device__ __forceinline__ void write(const float (&total)[HALVES][PART / 2], long long row) const {
        row += thread / 32 * 16 + lane / 4;
#pragma unroll
        for (int j = 0; j < WIDTH / 8; j += 2) {
            const bool pair = j + 1 < WIDTH / 8;
            const int channel = 8 * j + lane % 4 * (pair ? 4 : 2);
            if (channel >= CHANNELS) continue;
            const float* first = &total[j / (PART / 8)][j % (PART / 8) * 4];
            const float* second = pair ? &total[(j + 1) / (PART / 8)][(j + 1) % (PART / 8) * 4] : first;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                if (row + 8 * r >= rows) continue;
                const long long at = (row + 8 * r) * CHANNELS + channel;
                if (pair) {
                    const uint2 skip = *(const uint2*)(residual + at);
                    const float4 b = *(const float4*)(bias + channel);
                    const float2 low = Number::pair(skip.x), high = Number::pair(skip.y);
                    *(uint2*)(y + at) = make_uint2(
                        Number::packed(make_float2(first[2 * r] + b.x + low.x, first[2 * r + 1] + b.y + low.y)),
                        Number::packed(make_float2(second[2 * r] + b.z + high.x, second[2 * r + 1] + b.w + high.y)));
                } else {
                    const float2 low = Number::pair(*(const unsigned*)(residual + at));
                    const float2 b = *(const float2*)(bias + channel);
                    *(unsigned*)(y + at) =
                        Number::packed(make_float2(first[2 * r] + b.x + low.x, first[2 * r + 1] + b.y + low.y));
                }
            }
        }
        __syncwarp();
    }

    __device__ void run(int tiles, int first_tile, int step_tiles) const {
        // Channels beyond the map's: their weights are 0, which is not enough where memory has a NaN.
        if (CHANNELS % 16) {
            for (int i = thread; i < BUFFERS * MAP / 4; i += 128)
                ((unsigned*)(memory + group * BUFFERS * MAP))[i] = 0;
            group_wait(group);
        }
        long long row = (long long)first_tile * GROUPS * PIXELS + group * PIXELS;
        if (BUFFERS > 1) load(0, row);
        unsigned sequence = 0;
        for (int tile = first_tile, turn = 0; tile < tiles; tile += step_tiles, turn++) {
            const int buffer = turn % BUFFERS;
            const long long after = row + (long long)step_tiles * GROUPS * PIXELS;
            if (BUFFERS == 1) {
                group_wait(group);  // all are done with the pixels before
                load(0, row);
            }
            pieces_wait();
            show_matrix_units();
            group_wait(group);
            if (BUFFERS > 1 && tile + step_tiles < tiles) load(1 - buffer, after);

            const unsigned map = shared + (group * BUFFERS + buffer) * MAP;
            prefetch(row);
            float sum[BLOCK / 2], total[HALVES][PART / 2] = {};
            unsigned hidden[BLOCK / 4];
            begin(sum, 0);
            wait_for(sequence);
            up(sum, map, sequence);
            products_wait<0>();
            release(sequence++);
            activate(sum);
            take(hidden, sum);
#pragma unroll 1
            for (int block = 1; block < BLOCKS; block++) {
                begin(sum, block);
                wait_for(sequence);
                up(sum, map, sequence);
                wait_for(sequence + 1);
                down(total, hidden, sequence + 1);
                products_wait<1>();
                release(sequence++);
                activate(sum);
                products_wait<0>();
                release(sequence++);
                take(hidden, sum);
            }
            wait_for(sequence);
            down(total, hidden, sequence);
            products_wait<0>();
            release(sequence++);
#pragma unroll
            for (int half = 0; half < HALVES; half++) hold(total[half]);
            write(total, row);
            row = after;
        }
    }
};

static __device__ void fetch(unsigned shared, const char* weights, int slots) {
    for (int i = 0; i < slots; i++) {
        const unsigned slot = i % SLOTS, barrier = shared + FULL + 8 * slot;
        const int place = i % (2 * BLOCKS), bytes = place == 0 || (place % 2 && place < 2 * BLOCKS - 1) ? UP : DOWN;
        if (i >= SLOTS) barrier_wait(shared + EMPTY + 8 * slot, (i / SLOTS - 1) & 1);
        barrier_expect(barrier, bytes);
        bulk_copy(shared + WEIGHTS + slot * SLOT, weights + (long long)place * SLOT, bytes, barrier);
    }
}

extern "C" __global__ void __launch_bounds__((GROUPS + !RESIDENT) * 128, 1) feed_forward(
    const unsigned short* __restrict__ x, const char* __restrict__ weights, const float* __restrict__ bias_up,
    const float* __restrict__ bias, const unsigned short* __restrict__ residual, unsigned short* __restrict__ y, long long rows
) {
    extern __shared__ char memory[];
    char* aligned = memory + (1024 - shared_address(memory) % 1024) % 1024;
    const unsigned shared = shared_address(aligned);
    const int thread = threadIdx.x, group = thread / 128;
    if (thread == 0) {
        for (int slot = 0; slot < SLOTS; slot++) {
            barrier_begin(shared + FULL + 8 * slot, 1);
            barrier_begin(shared + EMPTY + 8 * slot, GROUPS * 4);
        }
        barriers_begun();
    }
    for (int i = thread; i < BLOCKS * BLOCK; i += blockDim.x) ((float*)(aligned + BIASES))[i] = bias_up[i];
    __syncthreads();
    const int tiles = int((rows + GROUPS * PIXELS - 1) / (GROUPS * PIXELS));
    if (RESIDENT) {
        if (thread == 0) fetch(shared, weights, 2 * BLOCKS);
    } else if (group == GROUPS) {
        fewer_registers();
        const int turns = (tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x);
        if (thread % 128 == 0) fetch(shared, weights, turns * 2 * BLOCKS);
        return;
    } else {
        more_registers();
    }
    const Group one{x, bias, residual, y, rows, aligned, shared, group, thread % 128, thread % 32};
    one.run(tiles, blockIdx.x, gridDim.x);
}

// The stem in one launch: 3x3 stride 2, depthwise 3x3 stride 2 and 1x1, each with GELU; its maps never leave the chip.
//
// A thread block has ROWS x COLUMNS outputs of an image. It copies the pixels that they need into shared memory. Matrix
// units compute the first convolution's map, 16 pixels of a warp at a time. Then ordinary units compute the depthwise
// convolution's map: a thread has a pair of channels and a few rows of a column. Matrix units compute the outputs.
//
// Weights of both products are packed in the order in which a lane needs them, and the channels of the last one so that
// a lane gets four in a row of each 16 (see fastvit/kernels/inference/stem_cuda.py). After the taps of the first
// convolution comes its bias, which is multiplied with a pixel that is always 1.
//
// IN, OUT, ROWS, COLUMNS, WARPS and BLOCKS are compile-time constants.

constexpr int WALK = 4;                                    // output rows of a thread
constexpr int WIDTH = (OUT + 15) / 16 * 16;                // channels with those that are padding
constexpr int TAPS = 9 * IN, STEPS = (TAPS + 1 + 15) / 16; // of the first product, 16 each
constexpr int TALL = 2 * ROWS + 1, WIDE = 2 * COLUMNS + 1; // the first convolution's map
constexpr int TILES = (TALL * WIDE + 15) / 16;             // of 16 of its pixels
constexpr int HIGH = 2 * TALL + 1, ACROSS = 2 * WIDE + 1;  // the image
constexpr int PITCH = 2 * WIDTH + 16;                      // bytes of a pixel: lanes of a warp then find all banks
constexpr int THREADS = 32 * WARPS;

// Offsets into shared memory: the map, then the image, later the depthwise convolution's map.
constexpr int SECOND = TILES * 16 * PITCH;
constexpr int ONE = IN * HIGH * ACROSS; // after the image: a 1 and a 0

#ifndef HOST
static __device__ void product(float (&sum)[4], const unsigned (&a)[4], uint2 b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32." SUFFIX "." SUFFIX ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}
#endif

struct Tile {
    int top, left, height, width; // of the outputs; all of them
    char* memory;
    int thread;

    // Pixels of the image; zero outside.
    __device__ void read(const unsigned short* image, int rows, int columns, long long channel, long long down, long long along)
        const {
        unsigned short* to = (unsigned short*)(memory + SECOND);
        const int first = 4 * top - 3, start = 4 * left - 3;
#pragma unroll 4
        for (int i = thread; i < IN * HIGH * ACROSS; i += THREADS) {
            const int c = i / (HIGH * ACROSS), y = first + i / ACROSS % HIGH, x = start + i % ACROSS;
            const bool inside = y >= 0 && y < rows && x >= 0 && x < columns;
            to[i] = inside ? image[c * channel + y * down + x * along] : (unsigned short)0;
        }
        if (thread == 0) {
            to[ONE] = (unsigned short)(Number::packed(make_float2(1.0f, 0.0f)) & 0xffff);
            to[ONE + 1] = 0;
        }
    }

    // The first convolution's map, zero outside it.
    __device__ void convolve(const uint2* weight, int tall, int wide) const {
        const unsigned short* image = (const unsigned short*)(memory + SECOND);
        const int lane = thread % 32;
        int tap[STEPS][4];
        bool fixed[STEPS][4];
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int k = 16 * s + lane % 4 * 2 + i % 2 + i / 2 * 8;
                fixed[s][i] = k >= TAPS;
                tap[s][i] = k < TAPS ? k / 9 * (HIGH * ACROSS) + k / 3 % 3 * ACROSS + k % 3 : k == TAPS ? ONE : ONE + 1;
            }
#pragma unroll 1
        for (int tile = thread / 32; tile < TILES; tile += WARPS) {
            int from[2];
            bool there[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int pixel = tile * 16 + lane / 4 + 8 * r, y = pixel / WIDE, x = pixel % WIDE;
                const int row = 2 * top - 1 + y, column = 2 * left - 1 + x;
                there[r] = y < TALL && row >= 0 && row < tall && column >= 0 && column < wide;
                from[r] = y < TALL ? 2 * y * ACROSS + 2 * x : 0;
            }
            unsigned a[STEPS][4];
#pragma unroll
            for (int s = 0; s < STEPS; s++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int r = i % 2, k = i / 2 * 2;
                    const unsigned low = image[tap[s][k] + (fixed[s][k] ? 0 : from[r])];
                    const unsigned high = image[tap[s][k + 1] + (fixed[s][k + 1] ? 0 : from[r])];
                    a[s][i] = low | high << 16;
                }
            char* to = memory + (tile * 16 + lane / 4) * PITCH + lane % 4 * 4;
#pragma unroll
            for (int j = 0; j < WIDTH / 8; j++) {
                float sum[4] = {};
#pragma unroll
                for (int s = 0; s < STEPS; s++) product(sum, a[s], weight[(s * (WIDTH / 8) + j) * 32 + lane]);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const unsigned value = Number::packed(make_float2(gelu(sum[2 * r]), gelu(sum[2 * r + 1])));
                    *(unsigned*)(to + r * 8 * PITCH + j * 16) = there[r] ? value : 0u;
                }
            }
        }
    }

    // The depthwise convolution's map.
    __device__ void walk(const float2* weight, const float2* bias) const {
        constexpr int PAIRS = WIDTH / 2;
#pragma unroll 1
        for (int i = thread; i < PAIRS * COLUMNS * (ROWS / WALK); i += THREADS) {
            const int pair = i % PAIRS, column = i / PAIRS % COLUMNS, first = i / PAIRS / COLUMNS * WALK;
            const char* from = memory + (2 * first * WIDE + 2 * column) * PITCH + pair * 4;
            char* to = memory + SECOND + (first * COLUMNS + column) * PITCH + pair * 4;
            float2 w[9], above[3];
#pragma unroll
            for (int k = 0; k < 9; k++) w[k] = weight[k * PAIRS + pair];
            const float2 start = bias[pair];
#pragma unroll
            for (int k = 0; k < 3; k++) above[k] = Number::pair(*(const unsigned*)(from + k * PITCH));
#pragma unroll
            for (int row = 0; row < WALK; row++) {
                float2 sum = start;
#pragma unroll
                for (int k = 0; k < 3; k++) sum = added(above[k], w[k], sum);
#pragma unroll
                for (int y = 1; y < 3; y++)
#pragma unroll
                    for (int k = 0; k < 3; k++) {
                        const float2 value = Number::pair(*(const unsigned*)(from + ((2 * row + y) * WIDE + k) * PITCH));
                        sum = added(value, w[3 * y + k], sum);
                        if (y == 2) above[k] = value;
                    }
                *(unsigned*)(to + row * COLUMNS * PITCH) = Number::packed(make_float2(gelu(sum.x), gelu(sum.y)));
            }
        }
    }

    static __device__ float2 added(float2 v, float2 w, float2 sum) {
        return make_float2(fmaf(v.x, w.x, sum.x), fmaf(v.y, w.y, sum.y));
    }

    // The outputs.
    __device__ void finish(const uint2* weight, const float4* bias, unsigned short* y) const {
        const int lane = thread % 32;
#pragma unroll 1
        for (int unit = thread / 32; unit < ROWS * COLUMNS / 16 * 2; unit += WARPS) {
            const int pixel = unit / 2 * 16 + lane / 4;
            const char* from = memory + SECOND + pixel * PITCH + lane % 4 * 4;
            unsigned a[WIDTH / 16][4];
#pragma unroll
            for (int s = 0; s < WIDTH / 16; s++)
#pragma unroll
                for (int i = 0; i < 4; i++) a[s][i] = *(const unsigned*)(from + i % 2 * 8 * PITCH + s * 32 + i / 2 * 16);
#pragma unroll 1
            for (int group = unit % 2; group < WIDTH / 16; group += 2) {
                float low[4] = {}, high[4] = {};
#pragma unroll
                for (int s = 0; s < WIDTH / 16; s++) {
                    const uint2* b = weight + (s * (WIDTH / 8) + 2 * group) * 32 + lane;
                    product(low, a[s], b[0]);
                    product(high, a[s], b[32]);
                }
                const int channel = 16 * group + 4 * (lane % 4);
                if (OUT % 16 && channel >= OUT) continue;
                const float4 b = bias[channel / 4];
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const int row = top + (pixel + 8 * r) / COLUMNS, column = left + (pixel + 8 * r) % COLUMNS;
                    if (row < height && column < width)
                        *(uint2*)(y + ((long long)row * width + column) * OUT + channel) = make_uint2(
                            Number::packed(make_float2(gelu(low[2 * r] + b.x), gelu(low[2 * r + 1] + b.y))),
                            Number::packed(make_float2(gelu(high[2 * r] + b.z), gelu(high[2 * r + 1] + b.w))));
                }
            }
            __syncwarp();
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) stem(
    const unsigned short* __restrict__ x, const uint2* __restrict__ weight1, const float2* __restrict__ weight2,
    const float2* __restrict__ bias2, const uint2* __restrict__ weight3, const float4* __restrict__ bias3,
    unsigned short* __restrict__ y, int rows, int columns, long long image, long long channel, long long down,
    long long along
) {
    extern __shared__ char memory[];
    const int tall = (rows + 1) / 2, wide = (columns + 1) / 2, height = (tall + 1) / 2, width = (wide + 1) / 2;
    const int across = (width + COLUMNS - 1) / COLUMNS, tiles = across * ((height + ROWS - 1) / ROWS);
    const int tile = blockIdx.x % tiles;
    const long long batch = blockIdx.x / tiles;
    const Tile one{tile / across * ROWS, tile % across * COLUMNS, height, width, memory, int(threadIdx.x)};
    one.read(x + batch * image, rows, columns, channel, down, along);
    __syncthreads();
    one.convolve(weight1, tall, wide);
    __syncthreads();
    one.walk(weight2, bias2);
    __syncthreads();
    one.finish(weight3, bias3, y + batch * height * width * OUT);
}

// Depthwise k x k convolution of NHWC maps in 16-bit numbers, with bias and GELU, in fp32 arithmetic.
//
// A thread has two output channels and a strip of TW output columns, and computes a chunk of rows from top to bottom.
// Every input row is read once: it is added to the DEPTH output rows that it touches, whose sums stay in registers and
// move by one row in each step. That is free, because the first multiply-add of a sum reads the register of the row
// before. The next row is loaded while this one is used. Weights are in shared memory, a float2 per tap and pair of
// channels.
//
// Arithmetic for 7x7 and TW 8, per row: 784 multiply-adds, 49 shared loads of 8 bytes, 14 loads and 28 conversions.
//
// CIN, K and the others are compile-time constants, so that offsets are immediate.

// Values of a pixel that a thread reads: both channels of a pair, or the one channel that both outputs come from.
template <class T, int M>
struct Pixel;

template <class T>
struct Pixel<T, 1> {
    typedef unsigned Raw;
    typedef float2 Value;
    static __device__ float2 value(unsigned v) { return T::pair(v); }
    static __device__ float2 fma(float2 v, float2 w, float2 sum) {
        return make_float2(fmaf(v.x, w.x, sum.x), fmaf(v.y, w.y, sum.y));
    }
};

template <class T>
struct Pixel<T, 2> {
    typedef unsigned short Raw;
    typedef float Value;
    static __device__ float value(unsigned short v) { return T::scalar(v); }
    static __device__ float2 fma(float v, float2 w, float2 sum) {
        return make_float2(fmaf(v, w.x, sum.x), fmaf(v, w.y, sum.y));
    }
};

// The taps of a strip in one row. `inner` has all of them inside the map; `mask` has a bit for each that is.
template <class P, int IW, int STEP>
static __device__ void read_row(typename P::Raw (&raw)[IW], const typename P::Raw* row, bool inner, unsigned mask) {
    if (inner) {
#pragma unroll
        for (int j = 0; j < IW; j++) raw[j] = row[j * STEP];
    } else {
#pragma unroll
        for (int j = 0; j < IW; j++) raw[j] = (mask >> j & 1) ? row[j * STEP] : typename P::Raw(0);
    }
}

// State of a thread that moves down its strip of one map: constants, and values that change in each step.
template <class T, int K, int S, int M, int CIN, int TW, bool ACT>
struct Walk {
    typedef Pixel<T, M> P;
    typedef typename P::Raw Raw;
    static constexpr int PAIRS = CIN * M / 2, PAD = K / 2, IW = (TW - 1) * S + K, DEPTH = (K + S - 1) / S;
    // Raw values per pixel: pairs of channels, or channels.
    static constexpr int STEP = M == 1 ? CIN / 2 : CIN;

    const Raw* map;
    unsigned* out;
    const float2* weight;
    float2 start;
    // Rows of the output chunk, rows of the input that it needs and that exist, elements per row of the map.
    int first, last, end, pitch;
    int out_width, column;
    bool inner;
    unsigned mask;

    // Adds row s of a step to every sum that it touches. Sums of rows outside the chunk are never written; skipping them
    // would cost more in moves between registers than it saves.
    template <int COLUMNS>
    __device__ __forceinline__ void add(float2 (&sum)[DEPTH][TW], const typename P::Value (&in)[IW], int s) const {
#pragma unroll
        for (int d = DEPTH - 1; d >= 0; d--) {
            const int kh = d * S + s;
            if (kh < K) {
#pragma unroll
                for (int kw = 0; kw < K; kw++) {
                    const float2 w = weight[(kh * K + kw) * COLUMNS];
#pragma unroll
                    for (int j = 0; j < TW; j++) {
                        // The first tap of a sum reads the previous row's sum from the register before it.
                        const bool moves = s == 0 && kw == 0;
                        const float2 before = !moves ? sum[d][j] : d == 0 ? start : sum[d > 0 ? d - 1 : 0][j];
                        sum[d][j] = P::fma(in[j * S + kw], w, before);
                    }
                }
            }
        }
    }

    // Moves down by S rows: output row `step` gets its first ones, and row `step - DEPTH + 1` its last, and is written.
    // ALL: all of these rows of the input and of the output exist.
    template <bool ALL, int COLUMNS>
    __device__ __forceinline__ void advance(float2 (&sum)[DEPTH][TW], Raw (&next)[IW], int step) const {
        int row = step * S - PAD;
#pragma unroll
        for (int s = 0; s < S; s++, row++) {
            const bool inside = ALL || (row >= 0 && row < end);
            typename P::Value in[IW];
            if (inside) {
#pragma unroll
                for (int j = 0; j < IW; j++) in[j] = P::value(next[j]);
            }
            if ((ALL || row + 1 >= 0) && row + 1 < end) {
                read_row<P, IW, STEP>(next, map + (long long)(row + 1) * pitch, inner, mask);
            }
            if (inside) {
                add<COLUMNS>(sum, in, s);
            } else if (s == 0) {
#pragma unroll
                for (int d = DEPTH - 1; d >= 0; d--)
#pragma unroll
                    for (int j = 0; j < TW; j++) sum[d][j] = d == 0 ? start : sum[d > 0 ? d - 1 : 0][j];
            }
        }
        const int done = step - (DEPTH - 1);
        if (ALL || done >= first) {
            unsigned* to = out + (long long)done * out_width * PAIRS;
#pragma unroll
            for (int j = 0; j < TW; j++) {
                float2 v = sum[DEPTH - 1][j];
                if (ACT) v = make_float2(gelu(v.x), gelu(v.y));
                if (column + j < out_width) to[j * PAIRS] = T::packed(v);
            }
        }
    }
};

template <class T, int K, int S, int M, int CIN, int TW, int THREADS, bool ACT>
static __device__ void walk(
    const void* __restrict__ x, const float2* __restrict__ weight, const float2* __restrict__ bias,
    unsigned* __restrict__ y, long long items, int height, int width, int out_height, int out_width, int rows
) {
    typedef Walk<T, K, S, M, CIN, TW, ACT> W;
    constexpr int PAIRS = W::PAIRS, STEP = W::STEP, IW = W::IW, DEPTH = W::DEPTH;
    // Pairs whose weights the block keeps: all pairs, or one pair per thread if there are more pairs than threads.
    constexpr bool OWN = PAIRS > THREADS;
    constexpr int COLUMNS = OWN ? THREADS : PAIRS;
    extern __shared__ float2 taps[];

    const int strips = (out_width + TW - 1) / TW;
    const long long item = (long long)blockIdx.x * THREADS + threadIdx.x;
    const int pair = int(item % PAIRS);
    if (OWN) {
#pragma unroll 7
        for (int k = 0; k < K * K; k++) taps[k * COLUMNS + threadIdx.x] = weight[k * PAIRS + pair];
    } else {
        for (int i = threadIdx.x; i < K * K * PAIRS; i += THREADS) taps[i] = weight[i];
    }
    __syncthreads();  // also if a thread reads its own: the compiler would keep them in registers and spill otherwise
    if (item >= items) return;

    const int strip = int(item / PAIRS % strips);
    const long long image = item / PAIRS / strips;
    const int left = strip * TW * S - W::PAD;
    W w;
    w.first = blockIdx.y * rows;
    w.last = min(w.first + rows, out_height);
    w.end = min(height, (w.last - 1) * S - W::PAD + K);
    w.pitch = width * STEP;
    w.out_width = out_width;
    w.column = strip * TW;
    w.weight = taps + (OWN ? int(threadIdx.x) : pair);
    w.start = bias[pair];
    w.map = (const typename W::Raw*)x + (image * height * width + left) * STEP + pair;
    w.out = y + (image * out_height * out_width + w.column) * PAIRS + pair;
    w.inner = left >= 0 && left + IW <= width;
    w.mask = 0;
#pragma unroll
    for (int j = 0; j < IW; j++) w.mask |= unsigned(left + j >= 0 && left + j < width) << j;

    float2 sum[DEPTH][TW];
#pragma unroll
    for (int d = 0; d < DEPTH; d++)
#pragma unroll
        for (int j = 0; j < TW; j++) sum[d][j] = w.start;

    typename W::Raw next[IW];
    const int row = w.first * S - W::PAD;
    if (row >= 0 && row < w.end) {
        read_row<typename W::P, IW, STEP>(next, w.map + (long long)row * w.pitch, w.inner, w.mask);
    }

    // Between the first and the last DEPTH - 1 steps of a chunk, all rows exist: a separate loop without tests.
#pragma unroll 1
    for (int step = w.first;; step++) {
        if (step - (DEPTH - 1) >= w.first) {
#pragma unroll 1
            for (; step < w.last; step++) w.template advance<true, COLUMNS>(sum, next, step);
        }
        if (step >= w.last + DEPTH - 1) break;
        w.template advance<false, COLUMNS>(sum, next, step);
    }
}

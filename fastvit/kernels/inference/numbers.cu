// 16-bit numbers, two in 32 bits, and GELU, for the kernels in CUDA C++: this text is put before theirs.
//
// Compiled by NVRTC without any header. tests/kernels/host.h runs the same text on a CPU.

#ifndef HOST
struct Half {
    static __device__ float scalar(unsigned short v) {
        float f;
        asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
        return f;
    }
    static __device__ float2 pair(unsigned v) { return make_float2(scalar(v & 0xffff), scalar(v >> 16)); }
    static __device__ unsigned packed(float2 f) {
        unsigned v;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(f.y), "f"(f.x));
        return v;
    }
};

struct BFloat16 {
    static __device__ float scalar(unsigned short v) { return __uint_as_float(unsigned(v) << 16); }
    static __device__ float2 pair(unsigned v) {
        return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
    }
    static __device__ unsigned packed(float2 f) {
        unsigned v;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(f.y), "f"(f.x));
        return v;
    }
};

static __device__ float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// NaN stays NaN, where fmaxf would drop it.
static __device__ float relu(float x) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(0.0f));
    return y;
}
#endif

// See fastvit/kernels/inference/gelu.py; its coefficients are defined as GELU_0 to GELU_5 and GELU_CUT.
static __device__ float gelu(float x) {
    float t = fminf(fabsf(x), GELU_CUT);
    float p = GELU_5;
    p = fmaf(p, t, GELU_4);
    p = fmaf(p, t, GELU_3);
    p = fmaf(p, t, GELU_2);
    p = fmaf(p, t, GELU_1);
    p = fmaf(p, t, GELU_0);
    return fmaf(-t, exp2_approximate(p), relu(x));
}

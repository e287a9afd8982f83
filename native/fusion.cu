// The GPU's side of fusion.hpp: a warp per window, its lanes share the classes.
//
// Arguments as in fusion.cpp, in device memory. Launch batch · 32 threads or more in all, in blocks
// of a multiple of 32.
#include "fusion.hpp"

namespace {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

struct Warp {
    int index = threadIdx.x % kWarp;
    int count = kWarp;

    __device__ double max(double x) const {
        for (int step = kWarp / 2; step > 0; step /= 2) {
            x = fmax(x, __shfl_xor_sync(kAll, x, step));
        }
        return x;
    }

    __device__ double sum(double x) const {
        for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
        return x;
    }
};

__device__ int window_index() { return (blockIdx.x * blockDim.x + threadIdx.x) / kWarp; }

}  // namespace

extern "C" __global__ void robult_pool(const float* logits, const float* temperature,
                                       const float* weights, const std::uint32_t* alive, int batch,
                                       int members, int classes, float* p) {
    const int b = window_index();
    if (b >= batch) return;
    const auto window = robult::window_at(b, logits, temperature, alive, members, classes);
    robult::pool(Warp{}, window, weights + static_cast<std::size_t>(b) * members,
                 p + static_cast<std::size_t>(b) * classes);
}

extern "C" __global__ void robult_mean(const float* logits, const float* temperature,
                                       const std::uint32_t* alive, int batch, int members,
                                       int classes, float* p) {
    const int b = window_index();
    if (b >= batch) return;
    const auto window = robult::window_at(b, logits, temperature, alive, members, classes);
    robult::mean(Warp{}, window, p + static_cast<std::size_t>(b) * classes);
}

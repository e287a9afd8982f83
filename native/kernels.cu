// The GPU's side: three kernels fit to be captured in a CUDA graph. They allocate nothing, and a
// launch's shape follows from sizes that a graph fixes: a batch with room left is padded with
// windows that have nothing alive, or no ring. Alive masks, table and spans are read from device
// memory. The windows of a batch may be of different sources.
//
// robult_fuse     a warp per window:              batch · 32 threads or more in all
// robult_gather   a row of the grid per window:   (any, batch) blocks
// robult_measure  a warp per window and channel:  batch · channels · 32 threads or more in all
//
// Blocks are a multiple of 32 threads wide.
#include "fusion.hpp"
#include "windows.hpp"

using namespace robult;

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

// The threads of a row of the grid, for work that needs no fold.
struct Row {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    int count = gridDim.x * blockDim.x;
};

__device__ int warp_index() { return (blockIdx.x * blockDim.x + threadIdx.x) / kWarp; }

}  // namespace

extern "C" __global__ void robult_fuse(Fusion x, Answers out) {
    const int b = warp_index();
    if (b < x.batch) fuse(Warp{}, x, b, out);
}

extern "C" __global__ void robult_gather(Spans x, const float* mean, const float* std,
                                         float* windows) {
    const std::size_t b = blockIdx.y, size = static_cast<std::size_t>(x.channels) * x.samples;
    gather(Row{}, x, blockIdx.y, mean, std, windows + b * size);
}

extern "C" __global__ void robult_measure(Spans x, ChannelStatistics* out) {
    const int i = warp_index();
    if (i < x.batch * x.channels) measure(Warp{}, x, i / x.channels, i % x.channels, out + i);
}

// native/kernels.cu on the host, so that its grids and warps are tested where there is no GPU: the
// lanes of a warp are threads in step, and warps run one after another.
#include "testing.hpp"

namespace {

struct Index {
    unsigned x = 0, y = 0;
};

thread_local Index threadIdx, blockIdx, blockDim, gridDim;
thread_local const Lane* this_lane = nullptr;

double __shfl_xor_sync(unsigned, double x, int step) {
    return this_lane->team->exchange(this_lane->index, x, this_lane->index ^ step);
}

template <class Kernel>
void launch(Index grid, unsigned threads, const Kernel& kernel) {
    for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
            for (unsigned warp = 0; warp < threads; warp += 32) {
                in_lanes(32, [&](const Lane& lane) {
                    this_lane = &lane;
                    gridDim = grid;
                    blockDim = {threads, 1};
                    blockIdx = {x, y};
                    threadIdx = {warp + lane.index, 0};
                    kernel();
                });
            }
        }
    }
}

}  // namespace

#define __global__
#define __device__
#include "kernels.cu"

extern "C" void emulated_fuse(unsigned x, unsigned y, unsigned threads, Fusion in, Answers out) {
    launch({x, y}, threads, [&] { robult_fuse(in, out); });
}

extern "C" void emulated_gather(unsigned x, unsigned y, unsigned threads, Spans in,
                                const float* mean, const float* std, float* windows) {
    launch({x, y}, threads, [&] { robult_gather(in, mean, std, windows); });
}

extern "C" void emulated_measure(unsigned x, unsigned y, unsigned threads, Spans in,
                                 ChannelStatistics* out) {
    launch({x, y}, threads, [&] { robult_measure(in, out); });
}

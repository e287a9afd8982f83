// Who shares the work on one window: lane `index` of `count` does every count-th part of it, and
// max and sum fold what the lanes found. `count` divides 32.
//
// Single works alone, on the host; kernels.cu has the GPU's lanes. A lane reads back only what it
// wrote itself, so that nothing but max and sum keeps lanes in step.
#pragma once

#ifdef __CUDACC__
#define ROBULT_HD __host__ __device__
#else
#define ROBULT_HD
#endif

namespace robult {

struct Single {
    int index = 0;
    int count = 1;
    ROBULT_HD double max(double x) const { return x; }
    ROBULT_HD double sum(double x) const { return x; }
};

}  // namespace robult

// The host library: kernels.cu's three entries with the same arguments, in host memory.
//
// Each returns 0, or −1 with nothing written where a size is out of range.
#include "fusion.hpp"
#include "windows.hpp"

using namespace robult;

namespace {

bool fits(const Fusion& x) {
    return x.batch >= 0 && x.modalities >= 1 && x.modalities <= kMaxModalities && x.classes >= 1;
}

bool fits(const Spans& x) {
    return x.batch >= 0 && x.channels >= 1 && x.samples >= 1 && x.samples <= x.capacity;
}

}  // namespace

extern "C" int robult_fuse(Fusion x, Answers out) {
    if (!fits(x)) return -1;
    for (int b = 0; b < x.batch; ++b) fuse(Single{}, x, b, out);
    return 0;
}

extern "C" int robult_gather(Spans x, const float* mean, const float* std, float* windows) {
    if (!fits(x)) return -1;
    const std::size_t size = static_cast<std::size_t>(x.channels) * x.samples;
    for (int b = 0; b < x.batch; ++b) gather(Single{}, x, b, mean, std, windows + b * size);
    return 0;
}

extern "C" int robult_measure(Spans x, ChannelStatistics* out) {
    if (!fits(x)) return -1;
    for (int b = 0; b < x.batch; ++b) {
        for (int c = 0; c < x.channels; ++c) measure(Single{}, x, b, c, out++);
    }
    return 0;
}

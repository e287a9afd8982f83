// The host library's C interface to fusion.hpp: one call per batch of windows.
//
// logits [batch, members, classes], temperature [members], alive [batch], p [batch, classes];
// weights [batch, members], since they belong to a window's alive subset. All arrays are dense.
// Returns 0, or -1 with nothing written where batch < 0, classes < 1 or members is not 1..32.
#include "fusion.hpp"

namespace {

bool fits(int batch, int members, int classes) {
    return batch >= 0 && members >= 1 && members <= robult::kMaxMembers && classes >= 1;
}

}  // namespace

extern "C" int robult_pool(const float* logits, const float* temperature, const float* weights,
                           const std::uint32_t* alive, int batch, int members, int classes,
                           float* p) {
    if (!fits(batch, members, classes)) return -1;
    for (int b = 0; b < batch; ++b) {
        const auto window = robult::window_at(b, logits, temperature, alive, members, classes);
        robult::pool(robult::Single{}, window, weights + static_cast<std::size_t>(b) * members,
                     p + static_cast<std::size_t>(b) * classes);
    }
    return 0;
}

extern "C" int robult_mean(const float* logits, const float* temperature,
                           const std::uint32_t* alive, int batch, int members, int classes,
                           float* p) {
    if (!fits(batch, members, classes)) return -1;
    for (int b = 0; b < batch; ++b) {
        const auto window = robult::window_at(b, logits, temperature, alive, members, classes);
        robult::mean(robult::Single{}, window, p + static_cast<std::size_t>(b) * classes);
    }
    return 0;
}

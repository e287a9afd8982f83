// Windows out of rings of samples: gathered for a branch, and measured for the fault checks.
//
// A ring is what runtime/windows.py keeps: sample j in row j % capacity, channels side by side. It
// may lie in device memory, or in pinned host memory that the device reads in place.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "lanes.hpp"

namespace robult {

// The samples of one window.
struct Span {
    const float* ring;    // [capacity, channels]; null: no window, but a batch's padding
    std::uint64_t first;  // index of its first sample
};

struct Spans {
    const Span* at;  // [batch]
    std::int32_t batch;
    std::int32_t capacity;
    std::int32_t channels;
    std::int32_t samples;  // of each span, capacity at most
};

// A span's samples by number, across the ring's end.
class Samples {
public:
    ROBULT_HD Samples(const Spans& x, int b)
        : ring_(x.at[b].ring),
          start_(static_cast<int>(x.at[b].first % x.capacity)),
          capacity_(x.capacity),
          channels_(x.channels) {}

    ROBULT_HD bool empty() const { return ring_ == nullptr; }

    ROBULT_HD float operator()(int j, int channel) const {
        const int row = j < capacity_ - start_ ? start_ + j : j - (capacity_ - start_);
        return ring_[static_cast<std::size_t>(row) * channels_ + channel];
    }

private:
    const float* ring_;
    int start_;
    int capacity_;
    int channels_;
};

// Window b as a branch takes it, [channels, samples]; zeros where there is none. With `mean` and
// `std` [channels], (x − mean) / std: for a graph that does not normalise by itself, as the
// bundle's own do.
template <class Lanes>
ROBULT_HD void gather(const Lanes& lanes, const Spans& x, int b, const float* mean,
                      const float* std, float* window) {
    const Samples sample(x, b);
    for (int i = lanes.index; i < x.channels * x.samples; i += lanes.count) {
        const int channel = i / x.samples;
        float value = 0.0f;
        if (!sample.empty()) {
            value = sample(i % x.samples, channel);
            if (mean) value = (value - mean[channel]) / std[channel];
        }
        window[i] = value;
    }
}

// What the fault checks ask of one channel. All but the last are of its finite samples alone:
// without any, min is ∞ and max −∞.
struct ChannelStatistics {
    double min;
    double max;
    double sum;
    double squares;  // Σ x_j²
    double travel;   // Σ |x_j − x_{j−1}|, over neighbours that are both finite
    double broken;   // how many samples are NaN or infinite
};

template <class Lanes>
ROBULT_HD void measure(const Lanes& lanes, const Spans& x, int b, int channel,
                       ChannelStatistics* out) {
    const Samples sample(x, b);
    ChannelStatistics s{INFINITY, -INFINITY, 0, 0, 0, 0};
    for (int j = lanes.index; j < x.samples && !sample.empty(); j += lanes.count) {
        const double value = sample(j, channel);
        if (!std::isfinite(value)) {
            ++s.broken;
            continue;
        }
        s.min = fmin(s.min, value);
        s.max = fmax(s.max, value);
        s.sum += value;
        s.squares += value * value;
        const double step = j > 0 ? value - sample(j - 1, channel) : 0.0;
        if (std::isfinite(step)) s.travel += fabs(step);
    }
    s = {-lanes.max(-s.min),     lanes.max(s.max),    lanes.sum(s.sum),
         lanes.sum(s.squares), lanes.sum(s.travel), lanes.sum(s.broken)};
    if (lanes.index == 0) *out = s;
}

}  // namespace robult

// How a stretch of samples [n, channels] moved and where it lay: what robult_edge/faults.py judges.
//
// The same maths as there: differences in float32, as NumPy takes them and training took them, so
// that a repeated sample is exactly one; sums in double.
#pragma once

#include <cmath>
#include <cstddef>

namespace robult {

constexpr int kSpikes = 6;  // faults.SPIKES

struct Stretch {
    const float* samples;  // [n, channels]
    int n;
    int channels;
};

// Largest and smallest per channel; NaN where a sample is NaN.
inline void extremes(const Stretch& x, float* top, float* bottom) {
    for (int c = 0; c < x.channels; ++c) {
        float most = x.samples[c], least = most;
        for (int j = 1; j < x.n; ++j) {
            const float value = x.samples[j * x.channels + c];
            if (value > most || value != value) most = value;
            if (value < least || value != value) least = value;
            if (value != value) break;
        }
        top[c] = most;
        bottom[c] = least;
    }
}

// Mean per channel. `mean` is room for kRows · channels; four rows at a time, since an addition
// waits for the one before it.
constexpr int kRows = 4;

inline void level(const Stretch& x, double* mean) {
    const int block = kRows * x.channels, end = x.n * x.channels, whole = end - end % block;
    for (int i = 0; i < block; ++i) mean[i] = 0;
    for (int at = 0; at < whole; at += block) {
        for (int i = 0; i < block; ++i) mean[i] += x.samples[at + i];
    }
    for (int i = whole; i < end; ++i) mean[i - whole] += x.samples[i];
    for (int i = x.channels; i < block; ++i) mean[i % x.channels] += mean[i];
    for (int c = 0; c < x.channels; ++c) mean[c] /= x.n;
}

// Mean length of the sample vectors.
inline double length(const Stretch& x) {
    double total = 0;
    for (int j = 0; j < x.n; ++j) {
        double squares = 0;
        for (int c = 0; c < x.channels; ++c) {
            const double value = x.samples[j * x.channels + c];
            squares += value * value;
        }
        total += std::sqrt(squares);
    }
    return total / x.n;
}

// Per channel the share of samples that repeat the one before and the roughness, and the spikiness
// of all, of kSpikes + 2 samples or more. `bends` is room for n · channels floats.
inline double motion(const Stretch& x, const float* per_usual, float* bends, double* repeats,
                     double* roughness) {
    const int c_ = x.channels, steps = (x.n - 1) * c_, seconds = (x.n - 2) * c_;
    const float* s = x.samples;
    for (int i = 0; i < seconds; ++i) {
        bends[i] = std::fabs((s[i + 2 * c_] - s[i + c_]) - (s[i + c_] - s[i]));
    }
    double worst[kSpikes];  // rising
    for (double& w : worst) w = -1;
    for (int i = 0; i < seconds; i += c_) {
        double stands_out = 0;
        for (int c = 0; c < c_; ++c) {
            const double by = bends[i + c] * per_usual[c];
            if (by > stands_out) stands_out = by;
        }
        if (stands_out <= worst[0]) continue;
        int at = 0;
        for (; at + 1 < kSpikes && worst[at + 1] < stands_out; ++at) worst[at] = worst[at + 1];
        worst[at] = stands_out;
    }
    for (int i = 0; i < seconds; ++i) bends[i] = std::sqrt(bends[i]);
    for (int c = 0; c < c_; ++c) {
        int same = 0;
        for (int i = c; i < steps; i += c_) same += s[i + c_] == s[i];
        double roots = 0;
        for (int i = c; i < seconds; i += c_) roots += bends[i];
        repeats[c] = static_cast<double>(same) / (x.n - 1);
        roots /= x.n - 2;
        roughness[c] = roots * roots;
    }
    return worst[0];
}

}  // namespace robult

// Whether a sensor's newest samples keep to its limits: the comparisons of robult_edge/faults.py,
// of the same quantities. Why they do not is for that to say.
#pragma once

#include <cmath>

#include "quantities.hpp"

namespace robult {

constexpr int kRunHops = 6;  // modality.RUN_HOPS

// faults.Limits, as faults._packed lays them out: numbers, then per channel.
struct Limits {
    int hop;
    bool moves;  // whether there are limits of motion and level
    double shortest, longest, spikiness, lean;
    const double *low, *high, *stillest;
    const double *lowest, *highest, *smoothest, *roughest, *repeats;

    static constexpr int kNumbers = 6, kPerChannel = 8;

    Limits(const double* packed, int channels)
        : hop(static_cast<int>(packed[0])),
          moves(packed[1] != 0),
          shortest(packed[2]),
          longest(packed[3]),
          spikiness(packed[4]),
          lean(packed[5]) {
        const double* row = packed + kNumbers;
        for (const double** rows : {&low, &high, &stillest, &lowest, &highest, &smoothest,
                                    &roughest, &repeats}) {
            *rows = row;
            row += channels;
        }
    }
};

// Room for what is computed on the way: of double kRows · channels, of float n · channels.
struct Scratch {
    double* numbers;
    float* bends;
};

inline Stretch newest(const Stretch& x, int n) {
    return {x.samples + static_cast<std::size_t>(x.n - n) * x.channels, n, x.channels};
}

// faults._check_motion of one hop.
inline bool moves_as_ever(const Stretch& x, const Limits& limits, const float* per_usual,
                          const Scratch& room) {
    double *repeats = room.numbers, *roughness = repeats + x.channels;
    const double spikiness = motion(x, per_usual, room.bends, repeats, roughness);
    for (int c = 0; c < x.channels; ++c) {
        if (!(repeats[c] <= limits.repeats[c] && roughness[c] <= limits.roughest[c] &&
              roughness[c] >= limits.smoothest[c])) {
            return false;
        }
    }
    return spikiness <= limits.spikiness;
}

// faults.check of samples that are new.
inline bool in_range(const Stretch& x, const Limits& limits, const float* per_usual,
                     const Scratch& room) {
    float *top = room.bends, *bottom = top + x.channels;
    extremes(x, top, bottom);
    const bool judged = x.n >= limits.hop && limits.hop > 1;
    for (int c = 0; c < x.channels; ++c) {
        const double most = top[c], least = bottom[c];
        if (!(most <= limits.high[c] && least >= limits.low[c])) return false;
        if (judged && most - least < limits.stillest[c]) return false;
    }
    for (int n = x.n; limits.moves && n >= limits.hop; n -= limits.hop) {
        const Stretch hop = newest({x.samples, n, x.channels}, limits.hop);
        if (!moves_as_ever(hop, limits, per_usual, room)) return false;
    }
    return true;
}

// faults.check_level of two hops, and faults.check_run of many.
inline bool lies_level(const Stretch& x, const Limits& limits, const Scratch& room) {
    level(x, room.numbers);
    for (int c = 0; c < x.channels; ++c) {
        if (!(room.numbers[c] >= limits.lowest[c] && room.numbers[c] <= limits.highest[c])) {
            return false;
        }
    }
    const double size = length(x);
    return size >= limits.shortest && size <= limits.longest;
}

inline bool comes_back(const Stretch& x, const Limits& limits, const Scratch& room) {
    level(x, room.numbers);
    double squares = 0;
    for (int c = 0; c < x.channels; ++c) squares += room.numbers[c] * room.numbers[c];
    return squares <= limits.lean * limits.lean;
}

// Of samples the last `fresh` are new, and the last `honest` are to be believed.
inline bool clean(const Stretch& x, int fresh, int honest, const Limits& limits,
                  const float* per_usual, const Scratch& room) {
    if (!in_range(newest(x, fresh), limits, per_usual, room)) return false;
    if (!limits.moves) return true;
    const int pair = 2 * limits.hop, run = kRunHops * limits.hop;
    return (honest < pair || lies_level(newest(x, pair), limits, room)) &&
           (honest < run || comes_back(newest(x, run), limits, room));
}

}  // namespace robult

// Masked late fusion: from the members' logits to one distribution, on the host and on the GPU.
//
// The same maths as robult_edge/fusion.py. A member is a branch or, as the last row, the fusion
// head. Bit i of `alive` says whether row i counts; a row that does not is never read, so it may
// hold anything. With no bit set there is no answer: every probability is NaN.
//
// Float32 in and out, sums in double: logits of ±80 still give probabilities right to 1e-6.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define ROBULT_HD __host__ __device__
#else
#define ROBULT_HD
#endif

namespace robult {

constexpr int kMaxMembers = 32;  // bits of `alive`

struct Window {
    const float* logits;       // [members, classes]
    const float* temperature;  // [members]
    std::uint32_t alive;
    int members;
    int classes;

    ROBULT_HD bool is_alive(int i) const { return (alive >> i & 1u) != 0; }

    ROBULT_HD int alive_count() const {
        int count = 0;
        for (int i = 0; i < members; ++i) count += is_alive(i);
        return count;
    }

    // ŷ_i / T_i at class k.
    ROBULT_HD double tempered(int i, int k) const {
        return static_cast<double>(logits[static_cast<std::size_t>(i) * classes + k]) /
               temperature[i];
    }
};

// Window b of a batch: logits [batch, members, classes], temperature [members], alive [batch].
ROBULT_HD inline Window window_at(int b, const float* logits, const float* temperature,
                                  const std::uint32_t* alive, int members, int classes) {
    return {logits + static_cast<std::size_t>(b) * members * classes, temperature, alive[b],
            members, classes};
}

// Who shares the classes of one window: lane `index` of `count` does every count-th class, and
// max and sum fold the lanes' values. Single works alone; fusion.cu has the GPU's Warp.
struct Single {
    int index = 0;
    int count = 1;
    ROBULT_HD double max(double x) const { return x; }
    ROBULT_HD double sum(double x) const { return x; }
};

template <class Lanes>
ROBULT_HD void clear(const Lanes& lanes, const Window& x, float* p) {
    const float start = x.alive_count() > 0 ? 0.0f : NAN;
    for (int k = lanes.index; k < x.classes; k += lanes.count) p[k] = start;
}

// p_k += share · softmax(z)_k for z(k), k < classes.
template <class Lanes, class Logit>
ROBULT_HD void add_softmax(const Lanes& lanes, int classes, double share, const Logit& z,
                           float* p) {
    double top = -INFINITY;
    for (int k = lanes.index; k < classes; k += lanes.count) top = fmax(top, z(k));
    top = lanes.max(top);
    double total = 0.0;
    for (int k = lanes.index; k < classes; k += lanes.count) {
        total += expf(static_cast<float>(z(k) - top));
    }
    share /= lanes.sum(total);
    for (int k = lanes.index; k < classes; k += lanes.count) {
        p[k] += static_cast<float>(share * expf(static_cast<float>(z(k) - top)));
    }
}

// Log-linear pool: p ∝ exp(Σ_{i∈A} w_i ŷ_i / T_i), weights [members], p [classes].
template <class Lanes>
ROBULT_HD void pool(const Lanes& lanes, const Window& x, const float* weights, float* p) {
    const auto pooled = [&](int k) {
        double z = 0.0;
        for (int i = 0; i < x.members; ++i) {
            if (x.is_alive(i)) z += weights[i] * x.tempered(i, k);
        }
        return z;
    };
    clear(lanes, x, p);
    add_softmax(lanes, x.classes, 1.0, pooled, p);
}

// The paper's rule: p = 1/|A| Σ_{i∈A} softmax(ŷ_i / T_i). Leave the fusion head's bit unset.
template <class Lanes>
ROBULT_HD void mean(const Lanes& lanes, const Window& x, float* p) {
    clear(lanes, x, p);
    const double share = 1.0 / x.alive_count();
    for (int i = 0; i < x.members; ++i) {
        if (!x.is_alive(i)) continue;
        add_softmax(lanes, x.classes, share, [&](int k) { return x.tempered(i, k); }, p);
    }
}

}  // namespace robult

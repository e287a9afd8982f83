// Masked late fusion: from the logits of branches and fusion head to one answer.
//
// The same maths as robult_edge/fusion.py, and the same table as a bundle's. The alive mask of a
// window picks the table's row. A branch that the row does not use is never read, nor a head
// without weight: they may hold anything. What is used is not hidden: NaN in gives NaN out.
//
// Float32 in and out, sums in double: logits of ±80 still give probabilities right to 1e-6.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "lanes.hpp"

namespace robult {

constexpr int kMaxModalities = 12;

enum class Rule : std::int32_t { pool = 0, mean = 1 };

// How an output becomes an answer: of classes, labels, and values.
enum class Link : std::int32_t { softmax = 0, sigmoid = 1, identity = 2 };

// How one alive subset answers. Bit i of `uses` is branch i; weights are the M branches', then the
// head's.
struct SubsetRow {
    double threshold;
    std::uint32_t uses;
    float weights[kMaxModalities + 1];
};

struct Fusion {
    const float* logits[kMaxModalities + 1];  // each [batch, classes]: M branches', then the head's
    const std::uint32_t* alive;               // [batch], bit i for branch i
    const float* temperature;                 // [M + 1]
    const SubsetRow* table;                   // [2^M − 1], by ascending mask
    std::int32_t batch;
    std::int32_t modalities;  // M
    std::int32_t classes;
    Rule rule;
    Link link = Link::softmax;

    ROBULT_HD std::uint32_t mask(int b) const { return alive[b] & ((1u << modalities) - 1); }

    // ŷ_i / T_i at class k of window b.
    ROBULT_HD double tempered(int i, int b, int k) const {
        const float logit = logits[i][static_cast<std::size_t>(b) * classes + k];
        return static_cast<double>(logit) / temperature[i];
    }
};

// A window with nothing alive, or with NaN in what it uses: p is NaN, top −1, and the set empty.
// Of labels and values, top and set are not written.
struct Answers {
    float* p;            // [batch, classes]
    float* own;          // [batch, M, classes] of each alive branch, NaN of others; null: unwanted
    std::int32_t* top;   // [batch], the most probable class
    std::uint32_t* set;  // [batch, ⌈classes / 32⌉], the prediction set: bit k % 32 of word k / 32
};

template <class Lanes>
ROBULT_HD void fill(const Lanes& lanes, int classes, float value, float* p) {
    for (int k = lanes.index; k < classes; k += lanes.count) p[k] = value;
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

// p_k += share · link(z)_k for z(k), k < classes.
template <class Lanes, class Output>
ROBULT_HD void add_linked(const Lanes& lanes, Link link, int classes, double share,
                          const Output& z, float* p) {
    if (link == Link::softmax) {
        add_softmax(lanes, classes, share, z, p);
        return;
    }
    for (int k = lanes.index; k < classes; k += lanes.count) {
        const double y = z(k);
        p[k] += static_cast<float>(share * (link == Link::sigmoid ? (1 + tanh(y / 2)) / 2 : y));
    }
}

// The pool, log-linear for classes and labels: p = link(Σ_{i∈A} w_i ŷ_i/T_i + w_0 ŷ_A/T_0).
template <class Lanes>
ROBULT_HD void add_pool(const Lanes& lanes, const Fusion& x, int b, const SubsetRow& row,
                        float* p) {
    const float head = row.weights[x.modalities];
    const auto pooled = [&](int k) {
        double z = head > 0 ? head * x.tempered(x.modalities, b, k) : 0.0;
        for (int i = 0; i < x.modalities; ++i) {
            if (row.uses >> i & 1u) z += row.weights[i] * x.tempered(i, b, k);
        }
        return z;
    };
    add_linked(lanes, x.link, x.classes, 1.0, pooled, p);
}

// The paper's rule: p = Σ_{i∈A} w_i link(ŷ_i / T_i); the head has no say.
template <class Lanes>
ROBULT_HD void add_mean(const Lanes& lanes, const Fusion& x, int b, const SubsetRow& row,
                        float* p) {
    for (int i = 0; i < x.modalities; ++i) {
        if (!(row.uses >> i & 1u)) continue;
        const auto branch = [&](int k) { return x.tempered(i, b, k); };
        add_linked(lanes, x.link, x.classes, row.weights[i], branch, p);
    }
}

// The most probable class, the lowest of equals, and the classes at or above the threshold; the
// most probable one always stays in.
template <class Lanes>
ROBULT_HD void conclude(const Lanes& lanes, int classes, const float* p, double threshold,
                        std::int32_t* top, std::uint32_t* set) {
    double highest = -INFINITY, first = classes;
    for (int k = lanes.index; k < classes; k += lanes.count) {
        if (p[k] > highest) {
            highest = p[k];
            first = k;
        }
    }
    const double most = lanes.max(highest);
    first = -lanes.max(highest == most ? -first : -classes);
    if (lanes.index == 0) *top = first < classes ? static_cast<std::int32_t>(first) : -1;
    const double bar = fmin(threshold, most);
    for (int begin = 0; begin < classes; begin += 32) {
        const int end = begin + 32 < classes ? begin + 32 : classes;
        double bits = 0.0;  // exact: a sum of different powers of two
        for (int k = begin + lanes.index; k < end; k += lanes.count) {
            if (p[k] >= bar) bits += 1u << (k - begin);
        }
        bits = lanes.sum(bits);
        if (lanes.index == 0) set[begin / 32] = static_cast<std::uint32_t>(bits);
    }
}

// Each branch's own answer, link(ŷ_i / T_i): for a result's parts, and for conflict.
template <class Lanes>
ROBULT_HD void each_branch(const Lanes& lanes, const Fusion& x, int b, float* p) {
    for (int i = 0; i < x.modalities; ++i, p += x.classes) {
        const bool alive = (x.mask(b) >> i & 1u) != 0;
        fill(lanes, x.classes, alive ? 0.0f : NAN, p);
        if (!alive) continue;
        const auto branch = [&](int k) { return x.tempered(i, b, k); };
        add_linked(lanes, x.link, x.classes, 1.0, branch, p);
    }
}

// Generalised Jensen–Shannon divergence of distributions [branches, classes], nats.
inline double conflict(const double* p, int branches, int classes) {
    double total = 0.0;
    for (int k = 0; k < classes; ++k) {
        double middle = 0.0;
        for (int i = 0; i < branches; ++i) middle += fmax(p[i * classes + k], 1e-12);
        middle /= branches;
        for (int i = 0; i < branches; ++i) {
            const double said = fmax(p[i * classes + k], 1e-12);
            total += said * log(said / middle);
        }
    }
    return total / branches;
}

// Everything that is to be said of window b.
template <class Lanes>
ROBULT_HD void fuse(const Lanes& lanes, const Fusion& x, int b, const Answers& out) {
    const std::uint32_t mask = x.mask(b);
    const std::size_t window = b, words = (x.classes + 31) / 32;
    float* p = out.p + window * x.classes;
    fill(lanes, x.classes, mask ? 0.0f : NAN, p);
    double threshold = 0.0;
    if (mask) {
        const SubsetRow& row = x.table[mask - 1];
        threshold = row.threshold;
        if (x.rule == Rule::pool) {
            add_pool(lanes, x, b, row, p);
        } else {
            add_mean(lanes, x, b, row, p);
        }
    }
    if (x.link == Link::softmax) {
        conclude(lanes, x.classes, p, threshold, out.top + b, out.set + window * words);
    }
    if (out.own) each_branch(lanes, x, b, out.own + window * x.modalities * x.classes);
}

}  // namespace robult

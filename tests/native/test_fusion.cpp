// Self test of native/fusion.hpp. The logits are logarithms of small integers, so that every
// expected probability is a fraction worked out by hand.
#include "fusion.hpp"

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using Row = std::vector<float>;
using robult::Single;
using robult::Window;

int failures = 0;

void expect(const char* what, const Row& got, const std::vector<double>& want) {
    for (std::size_t k = 0; k < want.size(); ++k) {
        const bool same = std::isnan(want[k]) ? std::isnan(got[k])
                                              : std::fabs(got[k] - want[k]) <= 1e-6;
        if (same) continue;
        std::printf("%s: p[%zu] is %.9g, expected %.9g\n", what, k, got[k], want[k]);
        ++failures;
    }
}

// Threads in step, as the lanes of a warp are.
class Team {
public:
    explicit Team(int size) : size_(size), slots_(size) {}

    template <class Fold>
    double fold(int lane, double x, Fold fold) {
        slots_[lane] = x;
        wait();
        double all = slots_[0];
        for (int i = 1; i < size_; ++i) all = fold(all, slots_[i]);
        wait();
        return all;
    }

private:
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        const int round = round_;
        if (++waiting_ == size_) {
            waiting_ = 0;
            ++round_;
            all_here_.notify_all();
        } else {
            all_here_.wait(lock, [&] { return round_ != round; });
        }
    }

    int size_;
    int waiting_ = 0;
    int round_ = 0;
    std::vector<double> slots_;
    std::mutex mutex_;
    std::condition_variable all_here_;
};

struct Lane {
    int index;
    int count;
    Team* team;
    double max(double x) const {
        return team->fold(index, x, [](double a, double b) { return std::fmax(a, b); });
    }
    double sum(double x) const {
        return team->fold(index, x, [](double a, double b) { return a + b; });
    }
};

template <class Body>
void in_lanes(int count, const Body& body) {
    Team team(count);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([&, i] { body(Lane{i, count, &team}); });
    for (auto& thread : threads) thread.join();
}

Row pooled(const Window& x, const Row& weights) {
    Row p(x.classes);
    robult::pool(Single{}, x, weights.data(), p.data());
    for (const int lanes : {2, 4}) {
        Row q(x.classes);
        in_lanes(lanes, [&](const Lane& lane) { robult::pool(lane, x, weights.data(), q.data()); });
        expect("pool in lanes", q, {p.begin(), p.end()});
    }
    return p;
}

Row averaged(const Window& x) {
    Row p(x.classes);
    robult::mean(Single{}, x, p.data());
    for (const int lanes : {2, 4}) {
        Row q(x.classes);
        in_lanes(lanes, [&](const Lane& lane) { robult::mean(lane, x, q.data()); });
        expect("mean in lanes", q, {p.begin(), p.end()});
    }
    return p;
}

}  // namespace

int main() {
    const float l2 = std::log(2.0f), l3 = std::log(3.0f), l4 = std::log(4.0f);
    // Two branches and the fusion head: softmax(row / T) is (1, 2, 4) / 7, (3, 3, 1) / 7 and
    // (1, 16, 1) / 18, the last of which its weight of a half turns to (1, 4, 1).
    const Row logits = {0, l2, l4, 2 * l3, 2 * l3, 0, 0, l4, 0};
    const Row temperature = {1, 2, 0.5f};
    const Row weights = {1, 1, 0.5f};
    Window x{logits.data(), temperature.data(), 0, 3, 3};

    x.alive = 0b111;
    expect("pool of all", pooled(x, weights), {3 / 31.0, 24 / 31.0, 4 / 31.0});
    expect("mean of all", averaged(x), {(4 / 7.0 + 1 / 18.0) / 3, (5 / 7.0 + 16 / 18.0) / 3,
                                        (5 / 7.0 + 1 / 18.0) / 3});
    x.alive = 0b011;
    expect("pool of branches", pooled(x, weights), {3 / 13.0, 6 / 13.0, 4 / 13.0});
    expect("mean of branches", averaged(x), {4 / 14.0, 5 / 14.0, 5 / 14.0});
    x.alive = 0b100;
    expect("pool of head", pooled(x, weights), {1 / 6.0, 4 / 6.0, 1 / 6.0});
    expect("mean of head", averaged(x), {1 / 18.0, 16 / 18.0, 1 / 18.0});

    // A weight of zero silences a living member.
    x.alive = 0b011;
    expect("pool, weight 0", pooled(x, {1, 0, 0}), {1 / 7.0, 2 / 7.0, 4 / 7.0});

    // Nothing alive, and bits beyond the members.
    for (const std::uint32_t alive : {0u, 0xfffffff8u}) {
        x.alive = alive;
        expect("pool of none", pooled(x, weights), {NAN, NAN, NAN});
        expect("mean of none", averaged(x), {NAN, NAN, NAN});
    }

    // What a dead member left behind does no harm; what a living one says is not hidden.
    const Row broken = {0, l2, l4, NAN, INFINITY, 0, 0, l4, 0};
    const Row broken_temperature = {1, NAN, 0.5f};
    Window y{broken.data(), broken_temperature.data(), 0b001, 3, 3};
    expect("pool beside NaN", pooled(y, {1, NAN, NAN}), {1 / 7.0, 2 / 7.0, 4 / 7.0});
    expect("mean beside NaN", averaged(y), {1 / 7.0, 2 / 7.0, 4 / 7.0});
    y.alive = 0b011;
    expect("pool of NaN", pooled(y, weights), {NAN, NAN, NAN});

    // Far beyond what exp can hold: differences alone count.
    const Row far = {1000, 1000, -1000, 80, 80, 80};
    const Row unit = {1, 1};
    const Window z{far.data(), unit.data(), 0b11, 2, 3};
    expect("pool of far logits", pooled(z, unit), {1 / 2.0, 1 / 2.0, 0});
    expect("mean of far logits", averaged(z),
           {5 / 12.0, 5 / 12.0, 1 / 6.0});

    std::printf(failures ? "%d values wrong\n" : "all as worked out by hand\n", failures);
    return failures != 0;
}

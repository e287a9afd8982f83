// What the self tests stand on: comparison with values worked out by hand, and lanes in step.
#pragma once

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <initializer_list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "lanes.hpp"

// Counts what differs by more than 1e-6, relative to values above 1. NaN and ∞ equal themselves.
class Checks {
public:
    template <class Got>
    void expect(const std::string& what, const Got& got, const std::vector<double>& want) {
        for (std::size_t k = 0; k < want.size(); ++k) {
            const double g = got[k], w = want[k];
            const bool same = std::isfinite(w)
                                  ? std::fabs(g - w) <= 1e-6 * std::fmax(1.0, std::fabs(w))
                                  : g == w || (std::isnan(g) && std::isnan(w));
            if (same) continue;
            std::printf("%s: [%zu] is %.9g, expected %.9g\n", what.c_str(), k, g, w);
            ++failures_;
        }
    }

    int report() const {
        std::printf(failures_ ? "%d values wrong\n" : "all as worked out by hand\n", failures_);
        return failures_ != 0;
    }

private:
    int failures_ = 0;
};

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

    // Gives x to the others, and takes what lane `from` gave.
    double exchange(int lane, double x, int from) {
        slots_[lane] = x;
        wait();
        const double taken = slots_[from];
        wait();
        return taken;
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

// Runs body(lane) in `count` lanes at once.
template <class Body>
void in_lanes(int count, const Body& body) {
    Team team(count);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([&, i] { body(Lane{i, count, &team}); });
    for (auto& thread : threads) thread.join();
}

// How many lanes the self tests run in; a body of one works alone.
inline constexpr std::initializer_list<int> kLanes = {1, 2, 4, 32};

template <class Body>
void alone_or_in_lanes(int count, const Body& body) {
    if (count == 1) {
        body(robult::Single{});
    } else {
        in_lanes(count, body);
    }
}

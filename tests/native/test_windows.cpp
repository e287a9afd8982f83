// Self test of native/windows.hpp on a ring of four samples of two channels, small enough to see.
#include "windows.hpp"

#include "testing.hpp"

namespace {

using Values = std::vector<double>;

Values gathered(const robult::Spans& x, const float* mean, const float* std, int lanes) {
    std::vector<float> window(x.channels * x.samples, -1.0f);
    alone_or_in_lanes(lanes, [&](const auto& lane) {
        robult::gather(lane, x, 0, mean, std, window.data());
    });
    return {window.begin(), window.end()};
}

Values measured(const robult::Spans& x, int channel, int lanes) {
    robult::ChannelStatistics s{};
    alone_or_in_lanes(lanes, [&](const auto& lane) { robult::measure(lane, x, 0, channel, &s); });
    return {s.min, s.max, s.sum, s.squares, s.travel, s.broken};
}

}  // namespace

int main() {
    Checks checks;
    const std::vector<float> ring = {1, 10, 2, 20, 3, 30, 4, 40};
    const std::vector<float> gaps = {1, NAN, 4, INFINITY, 2, 5, NAN, 3};
    const float mean[] = {1, 20}, std[] = {2, 10};
    robult::Span span{ring.data(), 0};
    const robult::Spans x{&span, 1, 4, 2, 3};

    for (const int lanes : kLanes) {
        span = {ring.data(), 1};
        checks.expect("as it lies", gathered(x, nullptr, nullptr, lanes), {2, 3, 4, 20, 30, 40});
        checks.expect("normalised", gathered(x, mean, std, lanes), {0.5, 1, 1.5, 0, 1, 2});
        span.first = 6;
        checks.expect("across the end", gathered(x, nullptr, nullptr, lanes),
                      {3, 4, 1, 30, 40, 10});
        checks.expect("statistics across the end", measured(x, 1, lanes),
                      {10, 40, 80, 2600, 40, 0});
        span.first = (1ull << 40) + 7;
        checks.expect("after a long time", gathered(x, nullptr, nullptr, lanes),
                      {4, 1, 2, 40, 10, 20});

        // Samples 3, 0, 1: NaN 1 4 in one channel, 3 NaN ∞ in the other.
        span = {gaps.data(), 3};
        checks.expect("NaN first", measured(x, 0, lanes), {1, 4, 5, 17, 3, 1});
        checks.expect("NaN and ∞", measured(x, 1, lanes), {3, 3, 3, 9, 0, 2});
        span.first = 2;
        checks.expect("a gap parts neighbours", measured({&span, 1, 4, 2, 4}, 0, lanes),
                      {1, 4, 7, 21, 3, 1});

        span.ring = nullptr;
        checks.expect("padding", gathered(x, mean, std, lanes), {0, 0, 0, 0, 0, 0});
        checks.expect("statistics of padding", measured(x, 0, lanes),
                      {INFINITY, -INFINITY, 0, 0, 0, 0});
    }
    return checks.report();
}

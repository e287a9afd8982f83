// Self test of native/fusion.hpp. The logits are logarithms of small integers, so that every
// expected probability is a fraction worked out by hand.
#include "fusion.hpp"

#include "testing.hpp"

namespace {

using robult::Link;
using robult::Rule;
using robult::SubsetRow;

constexpr int kBranches = 2, kClasses = 3;

struct Moment {
    std::vector<float> logits;  // of two branches and the head
    std::vector<float> temperature;
    std::vector<SubsetRow> table;
};

struct Answer {
    std::vector<float> p = std::vector<float>(kClasses);
    std::vector<float> own = std::vector<float>(kBranches * kClasses);
    std::int32_t top = 7;
    std::uint32_t set = 7;
};

Answer fuse(const Moment& x, std::uint32_t alive, Rule rule, int lanes,
            Link link = Link::softmax) {
    Answer a;
    const float* y = x.logits.data();
    const robult::Fusion fusion{{y, y + kClasses, y + 2 * kClasses},
                                &alive,
                                x.temperature.data(),
                                x.table.data(),
                                1,
                                kBranches,
                                kClasses,
                                rule,
                                link};
    const robult::Answers out{a.p.data(), a.own.data(), &a.top, &a.set};
    alone_or_in_lanes(lanes, [&](const auto& lane) { robult::fuse(lane, fusion, 0, out); });
    return a;
}

}  // namespace

int main() {
    Checks checks;
    const float l2 = std::log(2.0f), l3 = std::log(3.0f), l4 = std::log(4.0f);
    // softmax(row / T) is (1, 2, 4) / 7, (3, 3, 1) / 7 and (1, 16, 1) / 18, the last of which its
    // weight of a half turns to (1, 4, 1).
    const std::vector<float> logits = {0, l2, l4, 2 * l3, 2 * l3, 0, 0, l4, 0};
    const std::vector<float> temperature = {1, 2, 0.5f};
    const std::vector<SubsetRow> table = {
        {0.2, 0b01, {1, 0, 0.5f}}, {0.9, 0b01, {1, 0, 0}}, {0.1, 0b11, {1, 1, 0.5f}}};
    const std::vector<SubsetRow> means = {
        {0, 0b01, {1, 0, 0}}, {0, 0b10, {0, 1, 0}}, {0, 0b11, {0.5f, 0.5f, 0}}};

    for (const int lanes : kLanes) {
        const auto named = [&](const char* what) {
            return std::string(what) + " in " + std::to_string(lanes) + " lanes";
        };
        const auto expect = [&](const char* what, const Answer& a, std::vector<double> p,
                                double top, double set) {
            checks.expect(named(what), a.p, p);
            checks.expect(named(what) + ", top and set",
                          std::vector<double>{double(a.top), double(a.set)}, {top, set});
        };

        const Moment pool{logits, temperature, table};
        const Answer all = fuse(pool, 0b11, Rule::pool, lanes);
        expect("pool of all", all, {3 / 31.0, 24 / 31.0, 4 / 31.0}, 1, 0b110);
        checks.expect(named("each branch"), all.own,
                      {1 / 7.0, 2 / 7.0, 4 / 7.0, 3 / 7.0, 3 / 7.0, 1 / 7.0});
        expect("pool of one and head", fuse(pool, 0b01, Rule::pool, lanes),
               {1 / 13.0, 8 / 13.0, 4 / 13.0}, 1, 0b110);
        expect("bits beyond the branches", fuse(pool, 0b101, Rule::pool, lanes),
               {1 / 13.0, 8 / 13.0, 4 / 13.0}, 1, 0b110);
        expect("a subset that uses another", fuse(pool, 0b10, Rule::pool, lanes),
               {1 / 7.0, 2 / 7.0, 4 / 7.0}, 2, 0b100);

        const Moment mean{logits, temperature, means};
        expect("mean of both", fuse(mean, 0b11, Rule::mean, lanes),
               {4 / 14.0, 5 / 14.0, 5 / 14.0}, 1, 0b111);
        expect("mean of one", fuse(mean, 0b10, Rule::mean, lanes), {3 / 7.0, 3 / 7.0, 1 / 7.0}, 0,
               0b111);

        // Labels by themselves, and values as they are; top and set are left alone.
        expect("labels pooled", fuse(pool, 0b11, Rule::pool, lanes, Link::sigmoid),
               {3 / 4.0, 24 / 25.0, 4 / 5.0}, 7, 7);
        const Answer labels = fuse(mean, 0b11, Rule::mean, lanes, Link::sigmoid);
        expect("labels averaged", labels, {5 / 8.0, 17 / 24.0, 13 / 20.0}, 7, 7);
        checks.expect(named("each branch's labels"), labels.own,
                      {1 / 2.0, 2 / 3.0, 4 / 5.0, 3 / 4.0, 3 / 4.0, 1 / 2.0});
        expect("values pooled", fuse(pool, 0b11, Rule::pool, lanes, Link::identity),
               {l3, l2 + l3 + l4, l4}, 7, 7);
        expect("values averaged", fuse(mean, 0b11, Rule::mean, lanes, Link::identity),
               {l3 / 2, (l2 + l3) / 2, l4 / 2}, 7, 7);

        for (const Rule rule : {Rule::pool, Rule::mean}) {
            expect("nothing alive", fuse(pool, 0, rule, lanes), {NAN, NAN, NAN}, -1, 0);
        }

        // What a dead branch or a silent head left behind does no harm; what is used is not hidden.
        const std::vector<float> broken = {0, l2, l4, NAN, INFINITY, 0, NAN, NAN, NAN};
        const Moment beside{broken, {1, NAN, NAN}, means};
        for (const Rule rule : {Rule::pool, Rule::mean}) {
            const Answer a = fuse(beside, 0b01, rule, lanes);
            expect("beside NaN", a, {1 / 7.0, 2 / 7.0, 4 / 7.0}, 2, 0b111);
            checks.expect(named("each branch beside NaN"), a.own,
                          {1 / 7.0, 2 / 7.0, 4 / 7.0, NAN, NAN, NAN});
            expect("of NaN", fuse(beside, 0b11, rule, lanes), {NAN, NAN, NAN}, -1, 0);
        }

        // Far beyond what exp can hold: differences alone count.
        const Moment far{{1000, 1000, -1000, 80, 80, 80, 0, 0, 0}, {1, 1, 1}, means};
        expect("mean of far logits", fuse(far, 0b11, Rule::mean, lanes),
               {5 / 12.0, 5 / 12.0, 1 / 6.0}, 0, 0b111);
        expect("pool of far logits", fuse(far, 0b11, Rule::pool, lanes), {1 / 2.0, 1 / 2.0, 0}, 0,
               0b111);
    }
    return checks.report();
}

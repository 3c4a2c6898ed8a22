#pragma once

// What the logits of two caches over the same tokens differ by, one token at a time: no logits are kept.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

// of the token that follows: -ln of its probability under both, what the cell adds to it, and the KLD of the whole
struct kv_score {
    double nll_base;
    double nll;
    double kld;
    double p_diff;
    bool   same_top;
};

// Exponentials are taken of doubles: the terms of a KLD cancel each other to a millionth of what they are, and what
// floats leave of that is rounding. The same logits twice have a KLD of exactly 0.
inline kv_score kv_score_of(const float * base, const float * cell, int n_vocab, int next) {
    int top_base = 0;
    int top      = 0;
    for (int i = 1; i < n_vocab; ++i) {
        top_base = base[i] > base[top_base] ? i : top_base;
        top      = cell[i] > cell[top] ? i : top;
    }

    const double max_base = base[top_base];
    const double max      = cell[top];
    double       sum_base = 0.0;
    double       sum      = 0.0;
    double       apart    = 0.0;
    for (int i = 0; i < n_vocab; ++i) {
        const double x = base[i] - max_base;
        const double y = cell[i] - max;
        const double e = std::exp(x);

        sum_base += e;
        sum += std::exp(y);
        apart += e > 0.0 ? e * (x - y) : 0.0;  // a word that cannot come has no share, whatever the cell says
    }

    kv_score res;
    res.nll_base = std::log(sum_base) - (base[next] - max_base);
    res.nll      = std::log(sum) - (cell[next] - max);
    res.kld      = apart / sum_base - (std::log(sum_base) - std::log(sum));
    res.kld      = res.kld < 0.0 ? 0.0 : res.kld;  // rounding; what is no number stays none
    res.p_diff   = std::exp(-res.nll) - std::exp(-res.nll_base);
    res.same_top = top == top_base;

    return res;
}

// a mean and its standard error, as llama-perplexity has them
struct kv_estimate {
    double value;
    double error;
};

// Welford's: a variance that is small beside the square of its mean loses no digit
struct kv_moments {
    uint64_t n    = 0;
    double   mean = 0.0;
    double   m2   = 0.0;

    void add(double value) {
        const double from = value - mean;
        n += 1;
        mean += from / n;
        m2 += from * (value - mean);
    }

    // of the mean; 0 for so few values that nothing is known of it
    double error() const { return n > 10 ? std::sqrt(m2 / n / (n - 1)) : 0.0; }

    kv_estimate estimate() const { return { mean, error() }; }
};

// the scores of some tokens, of which only sums are kept
struct kv_totals {
    kv_moments nll_base, nll, kld, p_diff, p_diff_2;
    double     co_nll     = 0.0;
    uint64_t   n_same_top = 0;

    void add(const kv_score & score) {
        const double from = score.nll - nll.mean;
        nll.add(score.nll);
        nll_base.add(score.nll_base);
        co_nll += from * (score.nll_base - nll_base.mean);
        kld.add(score.kld);
        p_diff.add(score.p_diff);
        p_diff_2.add(score.p_diff * score.p_diff);
        n_same_top += score.same_top;
    }

    uint64_t count() const { return kld.n; }

    double covariance() const { return count() < 10 ? 0.0 : co_nll / count() / (count() - 1); }

    static kv_estimate exp_of(const kv_estimate & ln) { return { std::exp(ln.value), std::exp(ln.value) * ln.error }; }

    kv_estimate ppl() const { return exp_of(nll.estimate()); }

    kv_estimate ppl_base() const { return exp_of(nll_base.estimate()); }

    kv_estimate ln_ratio() const {
        const double squared = nll.error() * nll.error() + nll_base.error() * nll_base.error() - 2 * covariance();
        return { nll.mean - nll_base.mean, std::sqrt(std::max(squared, 0.0)) };
    }

    kv_estimate ratio() const { return exp_of(ln_ratio()); }

    kv_estimate difference() const {
        const kv_estimate q       = ppl();
        const kv_estimate b       = ppl_base();
        const double      squared = q.error * q.error + b.error * b.error - 2 * q.value * b.value * covariance();
        return { q.value - b.value, std::sqrt(std::max(squared, 0.0)) };
    }

    // percent; the same logits vary together as much as there is
    double correlation() const {
        const double both = nll.error() * nll_base.error();
        return both > 0.0 ? 100.0 * covariance() / both : std::numeric_limits<double>::quiet_NaN();
    }

    // percentage points
    kv_estimate mean_dp() const { return { 100.0 * p_diff.mean, 100.0 * p_diff.error() }; }

    kv_estimate rms_dp() const {
        const double root = std::sqrt(p_diff_2.mean);
        return { 100.0 * root, root > 0.0 ? 100.0 * 0.5 / root * p_diff_2.error() : 0.0 };
    }

    // percent
    kv_estimate same_top() const {
        const double share = count() ? (double) n_same_top / count() : 0.0;
        return { 100.0 * share, count() > 1 ? 100.0 * std::sqrt(share * (1.0 - share) / (count() - 1)) : 0.0 };
    }
};

// what so many percent of the values, which are sorted, do not exceed
inline double kv_quantile(const std::vector<double> & sorted, double percent) {
    const double at   = percent / 100.0 * (sorted.size() - 1);
    const size_t low  = std::min((size_t) at, sorted.size() - 1);
    const size_t high = std::min(low + 1, sorted.size() - 1);

    return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

// The ranges of positions that are told apart, as begin and end: octaves up to the half of a chunk that counts, then
// eighths of that half, or as many as it has tokens. The last token of a chunk has no successor.
inline std::vector<std::pair<int, int>> kv_blocks(int n_ctx, int shortest = 256, int n_parts = 8) {
    const int first = n_ctx / 2;
    const int end   = n_ctx - 1;

    std::vector<std::pair<int, int>> res;
    int                              to = first;
    while (to / 2 >= shortest) {
        res.emplace_back(to / 2, to);
        to /= 2;
    }
    res.emplace_back(0, to);
    std::reverse(res.begin(), res.end());

    n_parts = std::min(n_parts, end - first);
    for (int i = 0; i < n_parts; ++i) {
        res.emplace_back(first + (int) ((int64_t) (end - first) * i / n_parts),
                         first + (int) ((int64_t) (end - first) * (i + 1) / n_parts));
    }

    return res;
}

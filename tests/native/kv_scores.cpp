// What tests/native/test_kv_scores.py asks of the overlay's kv-scores.h, with plain C types.

#include "kv-scores.h"

extern "C" {

void score(const float * base, const float * cell, int n_vocab, int next, double * out) {
    const kv_score found = kv_score_of(base, cell, n_vocab, next);
    const double   all[] = { found.nll_base, found.nll, found.kld, found.p_diff, found.same_top ? 1.0 : 0.0 };
    std::copy(all, all + 5, out);
}

// n scores of five numbers each
void totals(const double * scores, int n, double * out) {
    kv_totals sum;
    for (int i = 0; i < n; ++i, scores += 5) {
        sum.add({ scores[0], scores[1], scores[2], scores[3], scores[4] != 0.0 });
    }
    const kv_estimate all[] = { sum.ppl(), sum.ppl_base(), sum.ln_ratio(), sum.ratio(), sum.difference(),
                                sum.kld.estimate(), sum.mean_dp(), sum.rms_dp(), sum.same_top() };
    for (const kv_estimate & one : all) {
        *out++ = one.value;
        *out++ = one.error;
    }
    *out = sum.correlation();
}

double quantile(const double * sorted, int n, double percent) {
    return kv_quantile({ sorted, sorted + n }, percent);
}

int blocks(int n_ctx, int * out) {
    const auto found = kv_blocks(n_ctx);
    for (const auto & [begin, end] : found) {
        *out++ = begin;
        *out++ = end;
    }
    return (int) found.size();
}

}

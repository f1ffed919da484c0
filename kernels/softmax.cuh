// Softmax in powers of two: the weight of a score s is 2^(s * SCORE_SCALE - base), base that of the
// largest score.
#pragma once

#include "ptx.cuh"

// log2(e) / sqrt(HEAD).
template <int HEAD>
constexpr float SCORE_SCALE = 0;
template <>
constexpr float SCORE_SCALE<32> = 0.255034862f;
template <>
constexpr float SCORE_SCALE<64> = 0.18033688f;
template <>
constexpr float SCORE_SCALE<128> = 0.127517431f;

// What scores are taken relative to. While every score is -infinity that is 0, so that their
// weights are 0, not NaN.
PTX_FN float softmax_base(float largest) { return largest == -INFINITY ? 0.0f : largest; }

// SiLU and its derivative, 16 at a time.

#ifndef DEEPPRISM_SILU_H_
#define DEEPPRISM_SILU_H_

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "vector.h"

namespace deepprism {
namespace {  // each file its own: what is not shared is inlined better

// x between -87 and 87; what is not a number stays none.
inline Vec Clamp(Vec x) {
#ifdef __AVX512F__
  const __m512 most = _mm512_set1_ps(87.f), least = _mm512_set1_ps(-87.f);
  return (Vec)_mm512_max_ps(least, _mm512_min_ps(most, (__m512)x));
#else
  const Vec most = Splat(87.f);
  x = x > most ? most : x;
  return x < -most ? -most : x;
#endif
}

// 1 / (1 + exp(-x)), relative error below 3e-7 for |x| <= 87. exp is 2^n, n whole, times a
// polynomial of 2^f, |f| <= 1/2.
inline Vec Sigmoid(Vec x) {
  x = Clamp(x);
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x * -1.44269504f + magic;
  const Vec f = (x * -1.44269504f - (shifted - magic)) + x * -1.925963e-8f;
  Vec p = Splat(1.3264727e-3f);
  for (float c : {9.671513e-3f, 5.5507336e-2f, 0.24022242f, 0.693147f, 1.f})
    p = p * f + c;
  return 1.f / (1.f + (Vec)((Ints)p + ((Ints)shifted << 23)));
}

}  // namespace
}  // namespace deepprism

#endif  // DEEPPRISM_SILU_H_

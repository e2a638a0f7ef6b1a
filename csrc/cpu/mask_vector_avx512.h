// Sixteen lanes by AVX-512F; included inside an unnamed namespace, before mask_body.h.

constexpr int N = 16;
typedef __m512 V;
typedef __mmask16 M;

inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V v) { _mm512_storeu_ps(p, v); }
inline V set1(float x) { return _mm512_set1_ps(x); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V sub(V a, V b) { return _mm512_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline M less(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline unsigned bits(M m) { return m; }
inline V select(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
// min and max return their second operand when one is NaN, so NaN stays
inline V clamp(V x, float limit) {
  return _mm512_max_ps(_mm512_set1_ps(-limit), _mm512_min_ps(_mm512_set1_ps(limit), x));
}
inline V clamp_infinite(V x) { return clamp(x, 1e30f); }
inline V permute1(V v, const int32_t* i) { return _mm512_permutexvar_ps(_mm512_loadu_si512(i), v); }
inline V permute2(V a, V b, const int32_t* i) { return _mm512_permutex2var_ps(a, _mm512_loadu_si512(i), b); }
inline V gather(const float* p, const int32_t* i) { return _mm512_i32gather_ps(_mm512_loadu_si512(i), p, 4); }

#include "mask_sigmoid.h"

// 1 / (1 + 2^z); the reciprocal is a 14-bit estimate and one Newton step
inline V sigmoid(V x) {
  const V z = clamp(mul(x, set1(-1.44269504f)), 126.0f);
  const V whole = _mm512_roundscale_ps(z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const V p = exp2_series(sub(z, whole));
  const V d = add(_mm512_scalef_ps(p, whole), set1(1.0f));
  const V estimate = _mm512_rcp14_ps(d);
  return mul(estimate, _mm512_fnmadd_ps(d, estimate, set1(2.0f)));
}

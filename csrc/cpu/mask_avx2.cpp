// Mask kernels for AVX2 with FMA: eight lanes.
#if defined(__x86_64__)
#include "mask_kernels.h"

#include <cstdlib>
#include <cstring>
#include <immintrin.h>

namespace frozenmm {
namespace {

constexpr int N = 8;
typedef __m256 V;
typedef __m256 M;

inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, V v) { _mm256_storeu_ps(p, v); }
inline V set1(float x) { return _mm256_set1_ps(x); }
inline V add(V a, V b) { return _mm256_add_ps(a, b); }
inline V sub(V a, V b) { return _mm256_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline M less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline unsigned bits(M m) { return static_cast<unsigned>(_mm256_movemask_ps(m)); }
inline V select(M m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
// min and max return their second operand when one is NaN, so NaN stays
inline V clamp(V x, float limit) {
  return _mm256_max_ps(_mm256_set1_ps(-limit), _mm256_min_ps(_mm256_set1_ps(limit), x));
}
inline V clamp_infinite(V x) { return clamp(x, 1e30f); }
inline __m256i indices(const int32_t* i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(i)); }
inline V permute1(V v, const int32_t* i) { return _mm256_permutevar8x32_ps(v, indices(i)); }
inline V permute2(V a, V b, const int32_t* i) {
  const __m256i index = indices(i);
  const V low = _mm256_permutevar8x32_ps(a, index), high = _mm256_permutevar8x32_ps(b, index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));  // bit 3 picks the second
}
inline V gather(const float* p, const int32_t* i) { return _mm256_i32gather_ps(p, indices(i), 4); }

#include "mask_sigmoid.h"

// 1 / (1 + 2^z)
inline V sigmoid(V x) {
  const V z = clamp(mul(x, set1(-1.44269504f)), 126.0f);
  const V whole = _mm256_round_ps(z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const V p = exp2_series(sub(z, whole));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  return _mm256_div_ps(set1(1.0f), fma(p, _mm256_castsi256_ps(power), set1(1.0f)));
}

#include "mask_body.h"

}  // namespace

const MaskKernels mask_kernels_avx2{false, N, 6, semantic_rows<pruned_tile>, panoptic_rows, instance_rows, pool_codes,
                                    pool_means};

}  // namespace frozenmm
#endif

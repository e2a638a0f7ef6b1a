// Vector types of one translation unit: `VecF` (float) and `VecD` (double), as wide as the flags of the unit allow.
//
// A unit named *_avx512.cpp or *_avx2.cpp is compiled with the flags of its name and picked at run time. So that the
// linker can never hand code of such a unit to another one, everything here has internal linkage, and units with flags
// include nothing of the standard C++ library but <cstdint>-like headers.
//
// Every type offers the same functions. `n` is the number of live
// lanes, at least 1; lanes past it read as zero and are not written, and more than there are count as all.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

inline double exp_lane(double x) { return __builtin_exp(x); }

// ------------------------------------------------------------------------------------------------ portable
// GCC and clang vector extensions: what the compiler makes of them on any architecture.
template <class C, class Int, int BYTES>
struct VecPortable {
  static constexpr int W = BYTES / static_cast<int>(sizeof(C));
  using Scalar = C;
  typedef C V __attribute__((vector_size(BYTES)));
  typedef Int I __attribute__((vector_size(BYTES)));
  using M = I;

  static V set(C x) { return V{} + x; }
  static I set_int(int32_t x) { return I{} + static_cast<Int>(x); }
  static V load(const C* p) { V r; std::memcpy(&r, p, sizeof r); return r; }
  static void store(C* p, V x) { std::memcpy(p, &x, sizeof x); }
  static V load_n(const C* p, int n) {
    if (n >= W) return load(p);
    V r = set(0);
    for (int i = 0; i < n; ++i) r[i] = p[i];
    return r;
  }
  static void store_n(C* p, V x, int n) {
    for (int i = 0; i < (n < W ? n : W); ++i) p[i] = x[i];
  }
  // Addresses of rows: `first` plus an offset in elements of SIZE bytes where `present`, else `absent`.
  template <int SIZE>
  static void store_rows(const void** to, I offset, M present, const void* first, const void* absent) {
    for (int i = 0; i < W; ++i) to[i] = present[i] ? static_cast<const char*>(first) + int64_t{offset[i]} * SIZE : absent;
  }
  static I load_int(const int32_t* p) { I r{}; for (int i = 0; i < W; ++i) r[i] = p[i]; return r; }
  static void store_int(int32_t* p, I x) { for (int i = 0; i < W; ++i) p[i] = static_cast<int32_t>(x[i]); }
  static void load_pairs(const C* p, int n, V& x, V& y) {
    x = set(0), y = set(0);
    for (int i = 0; i < (n < W ? n : W); ++i) x[i] = p[2 * i], y[i] = p[2 * i + 1];
  }
  static void store_pairs(C* p, V x, V y, int n) {
    for (int i = 0; i < (n < W ? n : W); ++i) p[2 * i] = x[i], p[2 * i + 1] = y[i];
  }
  static void load_quads(const C* p, V& a, V& b, V& c, V& d) {
    a = b = c = d = set(0);
    for (int i = 0; i < W; ++i) a[i] = p[4 * i], b[i] = p[4 * i + 1], c[i] = p[4 * i + 2], d[i] = p[4 * i + 3];
  }
  static V lookup(const C* table, int, I index) { V r{}; for (int i = 0; i < W; ++i) r[i] = table[index[i]]; return r; }
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V fma(V a, V b, V c) { return a * b + c; }
  static I add_int(I a, I b) { return a + b; }
  static I mul_int(I a, I b) { return a * b; }
  static M less(V a, V b) { return a < b; }
  static M less_int(I a, I b) { return a < b; }
  static M both(M a, M b) { return a & b; }
  static V select(M m, V a, V b) { return m ? a : b; }
  static I select_int(M m, I a, I b) { return m ? a : b; }
  static V max(V a, V b) { return a > b ? a : b; }
  static I truncate(V x) { return __builtin_convertvector(x, I); }
  static V to_float(I x) { return __builtin_convertvector(x, V); }
  static C sum(V x) { C r = 0; for (int i = 0; i < W; ++i) r += x[i]; return r; }
  static C largest(V x) { C r = x[0]; for (int i = 1; i < W; ++i) r = x[i] > r ? x[i] : r; return r; }
  static void sums4(V a, V b, V c, V d, C* p) { p[0] = sum(a), p[1] = sum(b), p[2] = sum(c), p[3] = sum(d); }
  static V exp(V x) {
    V r{};
    for (int i = 0; i < W; ++i) r[i] = static_cast<C>(exp_lane(x[i]));
    return r;
  }
};

// e^x by Cody-Waite reduction and the Taylor series of degree 7 on |r| <= ln2/2 (truncation 5e-9); NaN stays NaN.
template <class F>
inline typename F::V exp_series(typename F::V x) {
  const auto low = F::set(-87.f);
  const auto vanishes = F::less(x, low);
  x = F::max(low, x);  // `max` returns its second argument when that is NaN
  const auto n = F::round(F::mul(x, F::set(1.44269504f)));
  auto r = F::fma(n, F::set(-0.693359375f), x);
  r = F::fma(n, F::set(2.12194440e-4f), r);
  auto p = F::set(1.f / 5040);
  p = F::fma(p, r, F::set(1.f / 720));
  p = F::fma(p, r, F::set(1.f / 120));
  p = F::fma(p, r, F::set(1.f / 24));
  p = F::fma(p, r, F::set(1.f / 6));
  p = F::fma(p, r, F::set(0.5f));
  p = F::fma(p, r, F::set(1.f));
  p = F::fma(p, r, F::set(1.f));
  return F::select(vanishes, F::set(0.f), F::scale(p, n));
}

// ------------------------------------------------------------------------------------------------ AVX2 + FMA
#if defined(__AVX2__)
struct VecAvx2 {
  static constexpr int W = 8;
  using Scalar = float;
  using V = __m256;
  using I = __m256i;
  using M = __m256;

  static I live(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static V set(float x) { return _mm256_set1_ps(x); }
  static I set_int(int32_t x) { return _mm256_set1_epi32(x); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, V x) { _mm256_storeu_ps(p, x); }
  static V load_n(const float* p, int n) { return n >= W ? load(p) : _mm256_maskload_ps(p, live(n)); }
  static void store_n(float* p, V x, int n) { n >= W ? store(p, x) : _mm256_maskstore_ps(p, live(n), x); }
  template <int SIZE>
  static void store_rows(const void** to, I offset, M present, const void* first, const void* absent) {
    const I base = _mm256_set1_epi64x(reinterpret_cast<int64_t>(first));
    const I other = _mm256_set1_epi64x(reinterpret_cast<int64_t>(absent)), chosen = _mm256_castps_si256(present);
    for (int half = 0; half < 2; ++half) {
      const __m128i o = half ? _mm256_extracti128_si256(offset, 1) : _mm256_castsi256_si128(offset);
      const __m128i c = half ? _mm256_extracti128_si256(chosen, 1) : _mm256_castsi256_si128(chosen);
      const I row = _mm256_add_epi64(base, _mm256_slli_epi64(_mm256_cvtepi32_epi64(o), SIZE == 8 ? 3 : SIZE == 4 ? 2 : 1));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4 * half),
                          _mm256_blendv_epi8(other, row, _mm256_cvtepi32_epi64(c)));
    }
  }
  static I load_int(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store_int(int32_t* p, I x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
  static void load_pairs(const float* p, int n, V& x, V& y) {
    const V a = load_n(p, 2 * n), b = 2 * n > W ? load_n(p + W, 2 * n - W) : set(0.f);
    const V low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
    x = _mm256_shuffle_ps(low, high, 0x88);
    y = _mm256_shuffle_ps(low, high, 0xdd);
  }
  static void store_pairs(float* p, V x, V y, int n) {
    const V a = _mm256_unpacklo_ps(x, y), b = _mm256_unpackhi_ps(x, y);
    store_n(p, _mm256_permute2f128_ps(a, b, 0x20), 2 * n);
    if (2 * n > W) store_n(p + W, _mm256_permute2f128_ps(a, b, 0x31), 2 * n - W);
  }
  static V two(const float* low, const float* high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
  }
  static void load_quads(const float* p, V& a, V& b, V& c, V& d) {
    const V r0 = two(p, p + 16), r1 = two(p + 4, p + 20), r2 = two(p + 8, p + 24), r3 = two(p + 12, p + 28);
    const V t0 = _mm256_unpacklo_ps(r0, r1), t1 = _mm256_unpackhi_ps(r0, r1);
    const V t2 = _mm256_unpacklo_ps(r2, r3), t3 = _mm256_unpackhi_ps(r2, r3);
    a = _mm256_shuffle_ps(t0, t2, 0x44);
    b = _mm256_shuffle_ps(t0, t2, 0xee);
    c = _mm256_shuffle_ps(t1, t3, 0x44);
    d = _mm256_shuffle_ps(t1, t3, 0xee);
  }
  static V lookup(const float* table, int, I index) { return _mm256_i32gather_ps(table, index, 4); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
  static I mul_int(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static M less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static M less_int(I a, I b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)); }
  static M both(M a, M b) { return _mm256_and_ps(a, b); }
  static V select(M m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
  static I select_int(M m, I a, I b) { return _mm256_blendv_epi8(b, a, _mm256_castps_si256(m)); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }
  static I truncate(V x) { return _mm256_cvttps_epi32(x); }
  static V to_float(I x) { return _mm256_cvtepi32_ps(x); }
  static V round(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static V scale(V x, V n) {
    return mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(add_int(truncate(n), set_int(127)), 23)));
  }
  static float sum(V x) {
    __m128 r = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    r = _mm_add_ps(r, _mm_movehl_ps(r, r));
    return _mm_cvtss_f32(_mm_add_ss(r, _mm_movehdup_ps(r)));
  }
  static float largest(V x) {
    __m128 r = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    r = _mm_max_ps(r, _mm_movehl_ps(r, r));
    return _mm_cvtss_f32(_mm_max_ss(r, _mm_movehdup_ps(r)));
  }
  static void sums4(V a, V b, V c, V d, float* p) {
    const V ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const V cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const V r = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1)));
  }
  static V exp(V x) { return exp_series<VecAvx2>(x); }
};
#endif

// ------------------------------------------------------------------------------------------------ AVX-512
#if defined(__AVX512F__)
struct VecAvx512 {
  static constexpr int W = 16;
  using Scalar = float;
  using V = __m512;
  using I = __m512i;
  using M = __mmask16;

  static __mmask16 live(int n) { return n >= W ? 0xffff : static_cast<__mmask16>((1u << (n > 0 ? n : 0)) - 1); }
  static V set(float x) { return _mm512_set1_ps(x); }
  static I set_int(int32_t x) { return _mm512_set1_epi32(x); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, V x) { _mm512_storeu_ps(p, x); }
  static V load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(live(n), p); }
  static void store_n(float* p, V x, int n) { _mm512_mask_storeu_ps(p, live(n), x); }
  template <int SIZE>
  static void store_rows(const void** to, I offset, M present, const void* first, const void* absent) {
    const I base = _mm512_set1_epi64(reinterpret_cast<int64_t>(first));
    const I other = _mm512_set1_epi64(reinterpret_cast<int64_t>(absent));
    for (int half = 0; half < 2; ++half) {
      const __m256i o = half ? _mm512_extracti64x4_epi64(offset, 1) : _mm512_castsi512_si256(offset);
      const I step = _mm512_slli_epi64(_mm512_cvtepi32_epi64(o), SIZE == 8 ? 3 : SIZE == 4 ? 2 : 1);
      _mm512_storeu_si512(to + 8 * half, _mm512_mask_add_epi64(other, static_cast<__mmask8>(present >> 8 * half), base, step));
    }
  }
  static I load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store_int(int32_t* p, I x) { _mm512_storeu_si512(p, x); }
  static I ramp(int first, int step) {
    return add_int(set_int(first), mul_int(set_int(step),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  }
  static void load_pairs(const float* p, int n, V& x, V& y) {
    const V a = load_n(p, 2 * n), b = _mm512_maskz_loadu_ps(live(2 * n - W), p + W);
    x = _mm512_permutex2var_ps(a, ramp(0, 2), b);
    y = _mm512_permutex2var_ps(a, ramp(1, 2), b);
  }
  static void store_pairs(float* p, V x, V y, int n) {
    const I low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    store_n(p, _mm512_permutex2var_ps(x, low, y), 2 * n);
    _mm512_mask_storeu_ps(p + W, live(2 * n - W), _mm512_permutex2var_ps(x, add_int(low, set_int(8)), y));
  }
  static void load_quads(const float* p, V& a, V& b, V& c, V& d) {
    const V r0 = load(p), r1 = load(p + 16), r2 = load(p + 32), r3 = load(p + 48);
    // even and odd elements first: [a c a c ...] and [b d b d ...]
    const V ac0 = _mm512_permutex2var_ps(r0, ramp(0, 2), r1), ac1 = _mm512_permutex2var_ps(r2, ramp(0, 2), r3);
    const V bd0 = _mm512_permutex2var_ps(r0, ramp(1, 2), r1), bd1 = _mm512_permutex2var_ps(r2, ramp(1, 2), r3);
    a = _mm512_permutex2var_ps(ac0, ramp(0, 2), ac1);
    c = _mm512_permutex2var_ps(ac0, ramp(1, 2), ac1);
    b = _mm512_permutex2var_ps(bd0, ramp(0, 2), bd1);
    d = _mm512_permutex2var_ps(bd0, ramp(1, 2), bd1);
  }
  static V lookup(const float* table, int size, I index) {
    if (size <= W) return _mm512_permutexvar_ps(index, load_n(table, size));
    return _mm512_i32gather_ps(index, table, 4);
  }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static I mul_int(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static M less(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M less_int(I a, I b) { return _mm512_cmplt_epi32_mask(a, b); }
  static M both(M a, M b) { return a & b; }
  static V select(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
  static I select_int(M m, I a, I b) { return _mm512_mask_blend_epi32(m, b, a); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  static I truncate(V x) { return _mm512_cvttps_epi32(x); }
  static V to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static V round(V x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static V scale(V x, V n) { return _mm512_scalef_ps(x, n); }
  static float sum(V x) { return _mm512_reduce_add_ps(x); }
  static float largest(V x) { return _mm512_reduce_max_ps(x); }
  static void sums4(V a, V b, V c, V d, float* p) {
    const V ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const V cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const V r = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(r), _mm512_extractf32x8_ps(r, 1));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
  }
  static V exp(V x) { return exp_series<VecAvx512>(x); }
};
#endif

#if defined(__AVX512F__)
using VecF = VecAvx512;
using VecFHalf = VecAvx2;  // for rows of 8 channels
using VecD = VecPortable<double, int64_t, 64>;
#elif defined(__AVX2__)
using VecF = VecAvx2;
using VecFHalf = VecAvx2;
using VecD = VecPortable<double, int64_t, 32>;
#else
using VecF = VecPortable<float, int32_t, 16>;
using VecFHalf = VecF;
using VecD = VecPortable<double, int64_t, 16>;
#endif

}  // namespace

// Mask kernels for any machine: four lanes by the compiler's vector types.
#include "mask_kernels.h"

#include <cstdlib>
#include <cstring>

namespace frozenmm {
namespace {

constexpr int N = 4;
typedef float V __attribute__((vector_size(16)));
typedef int32_t M __attribute__((vector_size(16)));

inline V load(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, V v) { memcpy(p, &v, sizeof v); }
inline V set1(float x) { return V{x, x, x, x}; }
inline V add(V a, V b) { return a + b; }
inline V sub(V a, V b) { return a - b; }
inline V mul(V a, V b) { return a * b; }
inline V fma(V a, V b, V c) { return a * b + c; }
inline M less(V a, V b) { return a < b; }
inline unsigned bits(M m) {
  return static_cast<unsigned>((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8));
}
inline V select(M m, V a, V b) {
  M x, y;
  memcpy(&x, &a, sizeof x);
  memcpy(&y, &b, sizeof y);
  const M z = (m & x) | (~m & y);
  V v;
  memcpy(&v, &z, sizeof v);
  return v;
}
inline V clamp(V x, float limit) {
  const V high = set1(limit), low = set1(-limit);
  x = select(less(high, x), high, x);  // NaN stays
  return select(less(x, low), low, x);
}
inline V clamp_infinite(V x) { return clamp(x, 1e30f); }
inline V permute1(V v, const int32_t* i) { return V{v[i[0] & 3], v[i[1] & 3], v[i[2] & 3], v[i[3] & 3]}; }
inline V permute2(V a, V b, const int32_t* i) {
  float cells[8];
  store(cells, a);
  store(cells + 4, b);
  return V{cells[i[0]], cells[i[1]], cells[i[2]], cells[i[3]]};
}
inline V gather(const float* p, const int32_t* i) { return V{p[i[0]], p[i[1]], p[i[2]], p[i[3]]}; }

#include "mask_sigmoid.h"

// 1 / (1 + 2^z)
inline V sigmoid(V x) {
  const V z = clamp(x * set1(-1.44269504f), 126.0f);
  const V magic = set1(12582912.0f);
  const V whole = (z + magic) - magic;
  const V p = exp2_series(z - whole);
  // NaN has no exponent: any finite one will do, the polynomial carries it
  const V exponent = select(whole == whole, whole, set1(0.0f));
  const M power = (__builtin_convertvector(exponent, M) + 127) << 23;
  V scale;
  memcpy(&scale, &power, sizeof scale);
  return set1(1.0f) / fma(p, scale, set1(1.0f));
}

#include "mask_body.h"

}  // namespace

const MaskKernels mask_kernels_base{false, N, 6, semantic_rows<pruned_tile>, panoptic_rows, instance_rows, pool_codes,
                                    pool_means};

}  // namespace frozenmm

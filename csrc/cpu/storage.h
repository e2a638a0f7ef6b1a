// Rows of float, double, bfloat16 and half numbers in memory, read into and written from vectors of float or double.
// Internal linkage throughout, for the reason given in simd.h.
#pragma once

#include "simd.h"

namespace {

struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };

inline float as_float(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline uint32_t as_bits(float x) { uint32_t bits; std::memcpy(&bits, &x, 4); return bits; }

inline void widen(float x, float& out) { out = x; }
inline void widen(double x, double& out) { out = x; }
inline void widen(Bf16 x, float& out) { out = as_float(static_cast<uint32_t>(x.bits) << 16); }
inline void widen(F16 x, float& out) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) out = as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);  // infinity, NaN
  else if (rest >= 0x400u) out = as_float(sign | ((rest << 13) + (112u << 23)));
  else out = as_float(sign | as_bits(static_cast<float>(rest) * 0x1p-24f));          // zero, subnormal
}

// To the nearest, ties to even; NaN stays NaN.
inline void narrow(float x, float& out) { out = x; }
inline void narrow(double x, double& out) { out = x; }
inline void narrow(float x, Bf16& out) {
  const uint32_t bits = as_bits(x), rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  out.bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded);
}
inline void narrow(float x, F16& out) {
  const uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  uint32_t half;
  if (size > 0x7f800000u) half = 0x7e00u;
  else if (size >= 0x477ff000u) half = 0x7c00u;  // rounds to 2^16 or more
  else if (size >= 0x38800000u) half = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
  else half = as_bits(as_float(size) + 0.5f) - 0x3f000000u;  // the adder rounds at 2^-24, the step of subnormals
  out.bits = static_cast<uint16_t>(sign | half);
}

// The next `n` numbers (at most one vector), zeros after them.
template <class R, class T>
inline typename R::V load_row(const T* p, int64_t n) {
  const int live = n >= R::W ? R::W : static_cast<int>(n);
  if constexpr (sizeof(T) == sizeof(typename R::Scalar)) {
    return live == R::W ? R::load(p) : R::load_n(p, live);
  } else {
    typename R::Scalar lanes[R::W];
    if (live == R::W) {
      for (int i = 0; i < R::W; ++i) widen(p[i], lanes[i]);
    } else {
      for (int i = 0; i < R::W; ++i) lanes[i] = 0;
      for (int i = 0; i < live; ++i) widen(p[i], lanes[i]);
    }
    return R::load(lanes);
  }
}

template <class C, class T>
inline void store_row(const C* from, T* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) narrow(from[i], to[i]);
}

}  // namespace

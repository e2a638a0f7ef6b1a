// Rows of values: reading them with the weights of the samples, adding gradients onto them, and packing those of one head.
#pragma once

#include "ms_deform_attn_samples.h"
#include "storage.h"

namespace {

// Rows of one head lie far apart, which the prefetchers of the hardware do not follow: asked for this many rows ahead,
// packing and writing back take less time.
constexpr int kAhead = 16;

template <int WRITE, class T>
inline void fetch(const T* p, int64_t count) {
  const char* line = reinterpret_cast<const char*>(p);
  for (int64_t byte = 0; byte < count * static_cast<int64_t>(sizeof(T)); byte += 64)
    __builtin_prefetch(line + byte, WRITE);
}

// sum over samples and corners of weight * row, for NV vectors of channels; rows are of type T.
template <class R, int NV, class T>
inline void gather(const Corners<typename R::Scalar>* block, int count, typename R::Scalar* out) {
  constexpr int SETS = NV <= 2 ? 4 : NV <= 4 ? 2 : 1;  // independent sums hide the latency of the additions
  typename R::V sum[SETS][NV];
  for (int k = 0; k < SETS; ++k)
    for (int v = 0; v < NV; ++v) sum[k][v] = R::set(0);
  for (int left = count; left > 0; ++block, left -= kPad) {
    const Corners<typename R::Scalar>& corners = *block;
    const int live = left < kPad ? left : kPad;
    for (int lane = 0; lane < live; ++lane) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const T* row = static_cast<const T*>(corners.row[c][lane]);
        const auto weight = R::set(corners.weight[c][lane]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v)
          sum[c % SETS][v] = R::fma(weight, load_row<R>(row + v * R::W, R::W), sum[c % SETS][v]);
      }
    }
  }
  for (int v = 0; v < NV; ++v) {
    auto total = sum[0][v];
    if (SETS == 4) total = R::add(R::add(total, sum[1 % SETS][v]), R::add(sum[2 % SETS][v], sum[3 % SETS][v]));
    if (SETS == 2) total = R::add(total, sum[1 % SETS][v]);
    R::store(out + v * R::W, total);
  }
}

// For NV vectors of channels: <grad, corner row> into `s.sums`, and weight * grad onto the corner rows of `grad_rows`.
template <class R, int NV, bool POINTS, bool VALUES>
inline void scatter(const Samples<typename R::Scalar>& s, const typename R::Scalar* rows,
                    typename R::Scalar* grad_rows, const typename R::Scalar* grad, bool first) {
  using C = typename R::Scalar;
  typename R::V g[NV];
  for (int v = 0; v < NV; ++v) g[v] = R::load(grad + v * R::W);
  for (int i = 0; i < s.count; ++i) {
    const Corners<C>& corners = s.corners[0][i / kPad];
    const int lane = i % kPad;
    typename R::V dot[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int64_t offset = corners.offset[c][lane];
      if (POINTS) {
        dot[c] = R::mul(g[0], R::load(rows + offset));
#pragma GCC unroll 8
        for (int v = 1; v < NV; ++v) dot[c] = R::fma(g[v], R::load(rows + offset + v * R::W), dot[c]);
      }
      if (VALUES) {
        const auto weight = R::set(corners.weight[c][lane]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
          C* target = grad_rows + offset + v * R::W;
          R::store(target, R::fma(weight, g[v], R::load(target)));
        }
      }
    }
    if (!POINTS) continue;
    if (first) {
      R::sums4(dot[0], dot[1], dot[2], dot[3], s.sums + 4 * i);
    } else {
      C more[4];
      R::sums4(dot[0], dot[1], dot[2], dot[3], more);
      for (int c = 0; c < 4; ++c) s.sums[4 * i + c] += more[c];
    }
  }
}

// Calls `step(constant NV, first channel)` for blocks of 8 (if MAX is 8), 4, 2 or 1 vectors until `channels` are covered.
template <int N> struct Constant { static constexpr int value = N; };

template <int MAX, class Step>
inline void for_blocks(int64_t channels, int width, const Step& step) {
  for (int64_t at = 0; at < channels;) {
    const int64_t left = (channels - at) / width;
    const int take = MAX == 8 && left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    switch (take) {
      case 1: step(Constant<1>(), at); break;
      case 2: step(Constant<2>(), at); break;
      case 4: step(Constant<4>(), at); break;
      default: step(Constant<MAX>(), at); break;
    }
    at += static_cast<int64_t>(take) * width;
  }
}

// Copies channels [first, end) of one head into rows of `stride` numbers, padded with zeros, and adds a row of zeros.
template <class R, class T>
void pack(const T* from, typename R::Scalar* to, int64_t keys, int64_t row, int64_t channels, int64_t stride) {
  using C = typename R::Scalar;
  for (int64_t k = 0; k < keys; ++k, from += row, to += stride) {
    fetch<0>(from + kAhead * row, channels);
    for (int64_t d = 0; d < stride; d += R::W) R::store(to + d, load_row<R>(from + d, channels - d));
  }
  for (int64_t d = 0; d < stride; ++d) to[d] = static_cast<C>(0);
}

}  // namespace

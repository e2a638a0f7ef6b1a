// The kernels, once for every instruction set: a unit includes this file and exports one `Kernels` table.
//
// A query of one head reads levels * points samples, each of four rows of `channels` numbers. Positions, corner rows and
// weights of all samples are computed first, vectorised over samples; rows are then read without a branch, because a corner
// outside its map points at a row of zeros. A head's values are packed into a dense block that fits the second-level cache
// (rows of one head lie heads * channels apart in the tensor, which wastes most cache sets).
// The backward accumulates the value gradient in such a block too. One thread owns a block and walks the queries in
// order, so the sums are the same for any number of threads.
#pragma once

#include "ms_deform_attn.h"
#include "simd.h"
#include "storage.h"

namespace {

using frozenmm::deform::Problem;
using frozenmm::deform::Slice;

template <class A, class B> struct same_type { static constexpr bool value = false; };
template <class A> struct same_type<A, A> { static constexpr bool value = true; };

inline int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

// Rows of one head lie far apart, which the prefetchers of the hardware do not follow: asked for this many rows ahead,
// packing and writing back take less time.
constexpr int kAhead = 16;

template <int WRITE, class T>
inline void fetch(const T* p, int64_t count) {
  const char* line = reinterpret_cast<const char*>(p);
  for (int64_t byte = 0; byte < count * static_cast<int64_t>(sizeof(T)); byte += 64)
    __builtin_prefetch(line + byte, WRITE);
}

constexpr int kPad = 16;  // tables of samples are padded to a multiple of the widest vector

// Hands out aligned pieces of one allocation; a first pass with base == nullptr counts the bytes.
struct Arena {
  char* base = nullptr;
  int64_t used = 0;
  template <class T> T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base + used);
    used += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return piece;
  }
};

// Samples of one query and head, one array per quantity.
template <class C>
struct Samples {
  int count;
  int points;
  int32_t stride;                       // elements between two rows
  int32_t outside;                      // offset that stands for "no such row"
  C *width, *height;                    // of the sample's map
  int32_t *columns, *start, *lookup;    // map width, first row, index of its reference point
  int32_t* offset[4];                   // of the corners (y0,x0) (y0,x1) (y1,x0) (y1,x1)
  C* weight[4];                         // attention times bilinear weight
  C *fx, *fy;                           // fractions inside the cell
  C *attention;                         // 0 for a dropped sample
  C *probability;                       // softmax of the logits (fused form)
  C *sums;                              // [count][4]: <grad, corner row>
  C *share[4];                          // gradients of the reference points by sample

  void carve(Arena& arena, int samples) {
    count = samples;
    const int64_t n = round_up(samples, kPad);
    width = arena.take<C>(n), height = arena.take<C>(n);
    columns = arena.take<int32_t>(n), start = arena.take<int32_t>(n), lookup = arena.take<int32_t>(n);
    for (int c = 0; c < 4; ++c) offset[c] = arena.take<int32_t>(n), weight[c] = arena.take<C>(n);
    fx = arena.take<C>(n), fy = arena.take<C>(n), attention = arena.take<C>(n), probability = arena.take<C>(n);
    sums = arena.take<C>(4 * n);
    for (int c = 0; c < 4; ++c) share[c] = arena.take<C>(n);
  }

  void fill(const Problem& p, int32_t row_stride, int32_t outside_offset) {
    points = static_cast<int>(p.points), stride = row_stride, outside = outside_offset;
    const int padded = static_cast<int>(round_up(count, kPad));
    for (int i = 0; i < padded; ++i) {
      const int level = i < count ? i / points : 0;
      height[i] = static_cast<C>(p.shapes[2 * level]), width[i] = static_cast<C>(p.shapes[2 * level + 1]);
      columns[i] = static_cast<int32_t>(p.shapes[2 * level + 1]), start[i] = static_cast<int32_t>(p.starts[level]);
      lookup[i] = level * p.reference_size;
    }
    std::memset(sums, 0, sizeof(C) * 4 * padded);
  }
};

template <class F>
inline void softmax(const typename F::Scalar* logits, typename F::Scalar* out, int n) {
  using C = typename F::Scalar;
  const C lowest = -static_cast<C>(__builtin_inf());
  C top = lowest;
  int i = 0;
  if (n >= F::W) {
    auto m = F::set(lowest);
    for (; i + F::W <= n; i += F::W) m = F::max(m, F::load(logits + i));
    top = F::largest(m);
  }
  for (; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  auto total = F::set(0);
  for (i = 0; i < n; i += F::W) {
    const int live = n - i < F::W ? n - i : F::W;
    auto e = F::exp(F::sub(F::load_n(logits + i, live), F::set(top)));
    F::store(out + i, e);
    if (live < F::W) e = F::load_n(out + i, live), F::store(out + i, e);  // lanes past the end count as 0
    total = F::add(total, e);
  }
  const auto scale = F::set(static_cast<C>(1) / F::sum(total));
  for (i = 0; i < n; i += F::W) F::store(out + i, F::mul(F::load(out + i), scale));
}

// Positions in cells of the map (x right, y down; cell centres at integers) of the samples i ... i + W - 1.
template <class F, int REF>
inline void positions(const Samples<typename F::Scalar>& s, const typename F::Scalar* xy,
                      const typename F::Scalar* reference, int levels, int i, typename F::V& px, typename F::V& py) {
  using C = typename F::Scalar;
  const int live = s.count - i < F::W ? s.count - i : F::W;
  typename F::V x, y;
  F::load_pairs(xy + 2 * i, live, x, y);
  const auto w = F::load(s.width + i), h = F::load(s.height + i), half = F::set(static_cast<C>(0.5));
  if (REF == 0) {
    px = F::sub(F::mul(x, w), half), py = F::sub(F::mul(y, h), half);
    return;
  }
  const auto index = F::load_int(s.lookup + i);
  const int size = levels * REF;
  const auto rx = F::lookup(reference, size, index);
  const auto ry = F::lookup(reference, size, F::add_int(index, F::set_int(1)));
  if (REF == 2) {  // (r + offset / w) * w - 1/2
    px = F::sub(F::fma(rx, w, x), half), py = F::sub(F::fma(ry, h, y), half);
    return;
  }
  const auto step = F::set(static_cast<C>(0.5) / static_cast<C>(s.points));
  const auto rw = F::lookup(reference, size, F::add_int(index, F::set_int(2)));
  const auto rh = F::lookup(reference, size, F::add_int(index, F::set_int(3)));
  px = F::sub(F::mul(F::fma(F::mul(x, step), rw, rx), w), half);
  py = F::sub(F::mul(F::fma(F::mul(y, step), rh, ry), h), half);
}

// Fills offsets, weights, fractions and attention of all samples of one query.
template <class F, int REF>
inline void prepare(const Samples<typename F::Scalar>& s, const typename F::Scalar* xy,
                    const typename F::Scalar* attention, const typename F::Scalar* reference, int levels) {
  if (REF != 0) softmax<F>(attention, s.probability, s.count), attention = s.probability;
  const auto one = F::set(1), minus_one = F::set(-1), zero = F::set(0);
  const auto no_cell = F::set_int(-1), outside = F::set_int(s.outside), stride = F::set_int(s.stride);
  for (int i = 0; i < s.count; i += F::W) {
    typename F::V px, py;
    positions<F, REF>(s, xy, reference, levels, i, px, py);
    const auto w = F::load(s.width + i), h = F::load(s.height + i);
    // Positive form: a NaN or infinite position fails it, and no index is ever made from one.
    const auto inside = F::both(F::both(F::less(minus_one, px), F::less(minus_one, py)),
                                F::both(F::less(px, w), F::less(py, h)));
    px = F::select(inside, px, zero), py = F::select(inside, py, zero);
    auto x0 = F::truncate(px), y0 = F::truncate(py);
    x0 = F::select_int(F::less(px, F::to_float(x0)), F::add_int(x0, no_cell), x0);
    y0 = F::select_int(F::less(py, F::to_float(y0)), F::add_int(y0, no_cell), y0);
    const auto fx = F::sub(px, F::to_float(x0)), fy = F::sub(py, F::to_float(y0));
    const auto gx = F::sub(one, fx), gy = F::sub(one, fy);
    const auto a = F::select(inside, F::load_n(attention + i, s.count - i), zero);

    const auto columns = F::load_int(s.columns + i);
    const auto left = F::both(inside, F::less_int(no_cell, x0)), top = F::less_int(no_cell, y0);
    const auto right = F::both(inside, F::less(F::add(F::to_float(x0), one), w));
    const auto bottom = F::less(F::add(F::to_float(y0), one), h);
    const auto row0 = F::add_int(F::load_int(s.start + i), F::add_int(F::mul_int(y0, columns), x0));
    const auto o00 = F::mul_int(row0, stride), o10 = F::mul_int(F::add_int(row0, columns), stride);
    F::store_int(s.offset[0] + i, F::select_int(F::both(top, left), o00, outside));
    F::store_int(s.offset[1] + i, F::select_int(F::both(top, right), F::add_int(o00, stride), outside));
    F::store_int(s.offset[2] + i, F::select_int(F::both(bottom, left), o10, outside));
    F::store_int(s.offset[3] + i, F::select_int(F::both(bottom, right), F::add_int(o10, stride), outside));
    const auto up = F::mul(a, gy), down = F::mul(a, fy);
    F::store(s.weight[0] + i, F::mul(up, gx)), F::store(s.weight[1] + i, F::mul(up, fx));
    F::store(s.weight[2] + i, F::mul(down, gx)), F::store(s.weight[3] + i, F::mul(down, fx));
    F::store(s.fx + i, fx), F::store(s.fy + i, fy), F::store(s.attention + i, a);
  }
}

// sum over samples and corners of weight * row, for NV vectors of channels. Rows are of type T; DIRECT: in the tensor.
template <class R, int NV, bool DIRECT, class T>
inline void gather(const Samples<typename R::Scalar>& s, const T* rows, const T* zero_row, typename R::Scalar* out) {
  constexpr int SETS = NV <= 2 ? 4 : NV <= 4 ? 2 : 1;  // independent sums hide the latency of the additions
  typename R::V sum[SETS][NV];
  for (int k = 0; k < SETS; ++k)
    for (int v = 0; v < NV; ++v) sum[k][v] = R::set(0);
  for (int i = 0; i < s.count; ++i) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int32_t offset = s.offset[c][i];
      const T* row = DIRECT && offset == s.outside ? zero_row : rows + offset;
      const auto weight = R::set(s.weight[c][i]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        sum[c % SETS][v] = R::fma(weight, load_row<R>(row + v * R::W, R::W), sum[c % SETS][v]);
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
    typename R::V dot[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int64_t offset = s.offset[c][i];
      if (POINTS) {
        dot[c] = R::mul(g[0], R::load(rows + offset));
#pragma GCC unroll 8
        for (int v = 1; v < NV; ++v) dot[c] = R::fma(g[v], R::load(rows + offset + v * R::W), dot[c]);
      }
      if (VALUES) {
        const auto weight = R::set(s.weight[c][i]);
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

// Calls `step(constant NV, first channel)` for blocks of at most MAX vectors until `channels` are covered.
template <int N> struct Constant { static constexpr int value = N; };

template <int MAX, class Step>
inline void for_blocks(int64_t channels, int width, const Step& step) {
  for (int64_t at = 0; at < channels;) {
    const int64_t left = (channels - at) / width;
    const int take = static_cast<int>(left < MAX ? left : MAX);
    switch (take) {
      case 1: step(Constant<1>(), at); break;
      case 2: step(Constant<2>(), at); break;
      case 3: step(Constant<3>(), at); break;
      case 4: step(Constant<4>(), at); break;
      case 5: step(Constant<(MAX > 4 ? 5 : 4)>(), at); break;
      case 6: step(Constant<(MAX > 4 ? 6 : 4)>(), at); break;
      case 7: step(Constant<(MAX > 4 ? 7 : 4)>(), at); break;
      default: step(Constant<(MAX > 4 ? 8 : 4)>(), at); break;
    }
    at += static_cast<int64_t>(take) * width;
  }
}

// Gradients of locations and attention (or offsets, logits and reference points) of one query from `s.sums`.
template <class F, int REF>
inline void point_gradients(const Samples<typename F::Scalar>& s, const typename F::Scalar* xy,
                            const typename F::Scalar* reference, int levels, typename F::Scalar* grad_xy,
                            typename F::Scalar* grad_weights, bool shares) {
  using C = typename F::Scalar;
  const auto one = F::set(1), zero = F::set(0), step = F::set(static_cast<C>(0.5) / static_cast<C>(s.points));
  const auto outside = F::set_int(s.outside);
  auto mean = F::set(0);
  for (int i = 0; i < s.count; i += F::W) {
    const int live = s.count - i < F::W ? s.count - i : F::W;
    typename F::V d[4];
    F::load_quads(s.sums + 4 * i, d[0], d[1], d[2], d[3]);
    for (int c = 0; c < 4; ++c) d[c] = F::select(F::less_int(F::load_int(s.offset[c] + i), outside), d[c], zero);
    const auto fx = F::load(s.fx + i), fy = F::load(s.fy + i), a = F::load(s.attention + i);
    const auto gx = F::sub(one, fx), gy = F::sub(one, fy);
    const auto upper = F::fma(gx, d[0], F::mul(fx, d[1])), lower = F::fma(gx, d[2], F::mul(fx, d[3]));
    const auto grad_a = F::fma(gy, upper, F::mul(fy, lower));
    const auto slope_x = F::fma(gy, F::sub(d[1], d[0]), F::mul(fy, F::sub(d[3], d[2])));
    const auto slope_y = F::fma(gx, F::sub(d[2], d[0]), F::mul(fx, F::sub(d[3], d[1])));
    auto dx = F::mul(a, slope_x), dy = F::mul(a, slope_y);  // by cells of the map
    const auto location_x = F::mul(dx, F::load(s.width + i)), location_y = F::mul(dy, F::load(s.height + i));
    if (REF == 0) {
      F::store_pairs(grad_xy + 2 * i, location_x, location_y, live);
      F::store_n(grad_weights + i, grad_a, live);
      continue;
    }
    if (shares) F::store(s.share[0] + i, location_x), F::store(s.share[1] + i, location_y);
    if (REF == 4) {
      const auto index = F::load_int(s.lookup + i);
      const auto rw = F::lookup(reference, 4 * levels, F::add_int(index, F::set_int(2)));
      const auto rh = F::lookup(reference, 4 * levels, F::add_int(index, F::set_int(3)));
      const auto by_x = F::mul(location_x, step), by_y = F::mul(location_y, step);
      dx = F::mul(by_x, rw), dy = F::mul(by_y, rh);
      if (shares) {
        typename F::V x, y;
        F::load_pairs(xy + 2 * i, live, x, y);
        F::store(s.share[2] + i, F::mul(by_x, x)), F::store(s.share[3] + i, F::mul(by_y, y));
      }
    }
    F::store_pairs(grad_xy + 2 * i, dx, dy, live);
    F::store_n(grad_weights + i, grad_a, live);
    mean = F::fma(F::load_n(s.probability + i, live), F::load_n(grad_weights + i, live), mean);
  }
  if (REF == 0) return;
  const auto centre = F::set(F::sum(mean));  // backward of the softmax: p * (g - <p, g>)
  for (int i = 0; i < s.count; i += F::W) {
    const int live = s.count - i < F::W ? s.count - i : F::W;
    const auto g = F::sub(F::load_n(grad_weights + i, live), centre);
    F::store_n(grad_weights + i, F::mul(F::load(s.probability + i), g), live);
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

template <class F, class R, class T, int REF>
struct Kernel {
  using C = typename F::Scalar;
  static constexpr int MAX = sizeof(typename R::V) == 64 && R::W >= 16 ? 8 : 4;
  static constexpr bool kSameType = same_type<C, T>::value;
  static constexpr bool kReadable = kSameType || same_type<T, Bf16>::value;  // cheap enough to convert at every read

  const Problem& p;
  const Slice& part;
  int count, levels;
  Samples<C> samples;

  Kernel(const Problem& problem, const Slice& slice)
      : p(problem), part(slice), count(static_cast<int>(problem.levels * problem.points)),
        levels(static_cast<int>(problem.levels)) {}

  const C* at(const void* base, int64_t query, int64_t per_query) const {
    return static_cast<const C*>(base) + ((part.image * p.queries + query) * p.heads + part.head) * per_query;
  }
  C* at(void* base, int64_t query, int64_t per_query) const {
    return const_cast<C*>(at(static_cast<const void*>(base), query, per_query));
  }
  const C* reference(int64_t query) const {
    return REF == 0 ? nullptr
                    : static_cast<const C*>(p.reference) + (part.image * p.queries + query) * p.levels * REF;
  }
  const T* head_values() const {
    return static_cast<const T*>(p.value) + (part.image * p.keys * p.heads + part.head) * p.channels;
  }
  void prepare_query(int64_t query) const {
    prepare<F, REF>(samples, at(p.locations, query, 2 * count), at(p.weights, query, count), reference(query), levels);
  }

  template <bool DIRECT, class Row>
  void forward_queries(const Row* rows, const Row* zero_row, C* buffer, int64_t padded) const {
    T* out = static_cast<T*>(p.output) + ((part.image * p.queries + part.first_query) * p.heads + part.head) * p.channels;
    for (int64_t q = part.first_query; q < part.end_query; ++q, out += p.heads * p.channels) {
      prepare_query(q);
      const bool in_place = kSameType && padded == p.channels;
      C* target = in_place ? reinterpret_cast<C*>(out) : buffer;
      for_blocks<MAX>(padded, R::W, [&](auto vectors, int64_t channel) {
        gather<R, decltype(vectors)::value, DIRECT, Row>(samples, rows + channel, zero_row, target + channel);
      });
      if (!in_place) store_row(buffer, out, p.channels);
    }
  }

  bool forward() {
    const int64_t padded = round_up(p.channels, R::W);
    const bool direct = kReadable && padded == p.channels && !part.packed;
    Arena arena;
    C *block = nullptr, *buffer = nullptr;
    for (int pass = 0; pass < 2; ++pass) {
      arena.used = 0;
      samples.carve(arena, count);
      buffer = arena.take<C>(padded);
      block = arena.take<C>(direct ? padded : (p.keys + 1) * padded);
      if (pass == 0 && (arena.base = static_cast<char*>(p.workspace(arena.used))) == nullptr) return false;
    }
    if (direct) {
      for (int64_t d = 0; d < padded; ++d) block[d] = 0;
      samples.fill(p, static_cast<int32_t>(p.heads * p.channels), -1);
      // zeros are the same bits in every type
      if constexpr (kReadable) forward_queries<true>(head_values(), reinterpret_cast<const T*>(block), buffer, padded);
    } else {
      pack<R>(head_values(), block, p.keys, p.heads * p.channels, p.channels, padded);
      samples.fill(p, static_cast<int32_t>(padded), static_cast<int32_t>(p.keys * padded));
      forward_queries<false, C>(block, nullptr, buffer, padded);
    }
    return true;
  }

  template <bool POINTS, bool VALUES>
  void backward_queries(const C* rows, C* grad_rows, C* grad, int64_t padded) const {
    const int64_t channels = part.end_channel - part.first_channel;
    const T* grad_out = static_cast<const T*>(p.grad) + part.first_channel +
                        ((part.image * p.queries + part.first_query) * p.heads + part.head) * p.channels;
    for (int64_t q = part.first_query; q < part.end_query; ++q, grad_out += p.heads * p.channels) {
      prepare_query(q);
      const bool in_place = kSameType && padded == channels;
      const C* g = in_place ? reinterpret_cast<const C*>(grad_out) : grad;
      if (!in_place)
        for (int64_t d = 0; d < padded; d += R::W) R::store(grad + d, load_row<R>(grad_out + d, channels - d));
      for_blocks<MAX>(padded, R::W, [&](auto vectors, int64_t channel) {
        scatter<R, decltype(vectors)::value, POINTS, VALUES>(samples, rows + channel, grad_rows + channel, g + channel,
                                                             channel == 0);
      });
      if (!POINTS) continue;
      point_gradients<F, REF>(samples, at(p.locations, q, 2 * count), reference(q), levels,
                              at(p.grad_locations, q, 2 * count), at(p.grad_weights, q, count),
                              p.grad_reference != nullptr);
      if (REF != 0 && p.grad_reference != nullptr) reference_gradient(q);
    }
  }

  void reference_gradient(int64_t query) const {
    C* out = at(p.grad_reference, query, static_cast<int64_t>(levels) * REF);
    for (int level = 0; level < levels; ++level)
      for (int k = 0; k < REF; ++k) {
        C total = 0;
        for (int i = 0; i < samples.points; ++i) total += samples.share[k][level * samples.points + i];
        out[level * REF + k] = total;
      }
  }

  bool backward() {
    const int64_t channels = part.end_channel - part.first_channel, padded = round_up(channels, R::W);
    const int64_t size = (p.keys + 1) * padded;
    Arena arena;
    C *block = nullptr, *grad_block = nullptr, *buffer = nullptr;
    for (int pass = 0; pass < 2; ++pass) {
      arena.used = 0;
      samples.carve(arena, count);
      buffer = arena.take<C>(padded);
      block = arena.take<C>(part.point_grads ? size : 0);
      grad_block = arena.take<C>(part.value_grads ? size : 0);
      if (pass == 0 && (arena.base = static_cast<char*>(p.workspace(arena.used))) == nullptr) return false;
    }
    samples.fill(p, static_cast<int32_t>(padded), static_cast<int32_t>(p.keys * padded));
    const int64_t row = p.heads * p.channels;
    if (part.point_grads) pack<R>(head_values() + part.first_channel, block, p.keys, row, channels, padded);
    if (part.value_grads) std::memset(grad_block, 0, sizeof(C) * size);
    if (part.point_grads && part.value_grads) backward_queries<true, true>(block, grad_block, buffer, padded);
    else if (part.point_grads) backward_queries<true, false>(block, grad_block, buffer, padded);
    else backward_queries<false, true>(block, grad_block, buffer, padded);
    if (part.value_grads) {
      T* out = static_cast<T*>(p.grad_value) + (part.image * p.keys * p.heads + part.head) * p.channels +
               part.first_channel;
      for (int64_t k = 0; k < p.keys; ++k) {
        fetch<1>(out + (k + kAhead) * row, channels);
        store_row(grad_block + k * padded, out + k * row, channels);
      }
    }
    return true;
  }
};

template <class F, class R, class T>
bool run(const Problem& p, const Slice& s, bool backward) {
  if (p.reference_size == 0) {
    Kernel<F, R, T, 0> kernel(p, s);
    return backward ? kernel.backward() : kernel.forward();
  }
  if (p.reference_size == 2) {
    Kernel<F, R, T, 2> kernel(p, s);
    return backward ? kernel.backward() : kernel.forward();
  }
  Kernel<F, R, T, 4> kernel(p, s);
  return backward ? kernel.backward() : kernel.forward();
}

template <class T>
bool run_float(const Problem& p, const Slice& s, bool backward) {
  if (p.channels <= VecFHalf::W) return run<VecF, VecFHalf, T>(p, s, backward);
  return run<VecF, VecF, T>(p, s, backward);
}

inline bool run_any(const Problem& p, const Slice& s, bool backward) {
  switch (p.storage) {
    case frozenmm::deform::Storage::f32: return run_float<float>(p, s, backward);
    case frozenmm::deform::Storage::bf16: return run_float<Bf16>(p, s, backward);
    case frozenmm::deform::Storage::f16: return run_float<F16>(p, s, backward);
    case frozenmm::deform::Storage::f64: return run<VecD, VecD, double>(p, s, backward);
  }
  return false;
}

bool forward(const Problem& p, const Slice& s) { return run_any(p, s, false); }
bool backward(const Problem& p, const Slice& s) { return run_any(p, s, true); }

}  // namespace

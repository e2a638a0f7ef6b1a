// Samples of one query and head: where they lie, which rows they read with which weight, and their gradients. Everything is
// vectorised over samples; the rows themselves are the business of ms_deform_attn_rows.h.
#pragma once

#include "ms_deform_attn.h"
#include "simd.h"

namespace {

using frozenmm::deform::Problem;

inline int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

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

// The corners (y0,x0) (y0,x1) (y1,x0) (y1,x1) of kPad samples: their rows, and attention times bilinear weight. One block,
// so that a loop over samples needs one pointer for all of it.
template <class C>
struct alignas(64) Corners {
  C weight[4][kPad];
  const void* row[4][kPad];  // forward
  int32_t offset[4][kPad];   // backward, where a row of values and one of gradients lie alike
};

// Where the rows of one head are.
struct Rows {
  const void* first;
  const void* zeros;      // stands for all that are outside their map
  int32_t stride;         // elements between two rows
  int32_t outside;        // offset of `zeros`, above all others; used by the backward only
};

// Samples of one query and head, one array per quantity.
template <class C>
struct Samples {
  int count, blocks;
  int points;
  C *width, *height;                    // of the sample's map
  int32_t *columns, *start, *lookup;    // map width, first row, index of its reference point
  Corners<C>* corners[2];               // [blocks]; two, so that those of a query are ready before they are needed
  C *fx, *fy;                           // fractions inside the cell
  C *attention;                         // 0 for a dropped sample
  C *probability;                       // softmax of the logits (fused form)
  C *sums;                              // [count][4]: <grad, corner row>
  C *share[4];                          // gradients of the reference points by sample

  void carve(Arena& arena, int samples) {
    const int64_t n = round_up(samples, kPad);
    count = samples, blocks = static_cast<int>(n / kPad);
    width = arena.take<C>(n), height = arena.take<C>(n);
    columns = arena.take<int32_t>(n), start = arena.take<int32_t>(n), lookup = arena.take<int32_t>(n);
    for (auto& c : corners) c = arena.take<Corners<C>>(blocks);
    fx = arena.take<C>(n), fy = arena.take<C>(n), attention = arena.take<C>(n), probability = arena.take<C>(n);
    sums = arena.take<C>(4 * n);
    for (int c = 0; c < 4; ++c) share[c] = arena.take<C>(n);
  }

  void fill(const Problem& p) {
    points = static_cast<int>(p.points);
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

// Fills the corners of all samples of one query: addresses of rows of numbers of SIZE bytes, or (SIZE 0) their offsets and
// what the gradients of the samples need.
template <class F, int REF, int SIZE>
inline void prepare(const Samples<typename F::Scalar>& s, Corners<typename F::Scalar>* into, const Rows& rows,
                    const typename F::Scalar* xy, const typename F::Scalar* attention,
                    const typename F::Scalar* reference, int levels) {
  if (REF != 0) softmax<F>(attention, s.probability, s.count), attention = s.probability;
  const auto one = F::set(1), minus_one = F::set(-1), zero = F::set(0);
  const auto no_cell = F::set_int(-1), outside = F::set_int(rows.outside), stride = F::set_int(rows.stride);
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
    Corners<typename F::Scalar>& corners = into[i / kPad];
    const int lane = i % kPad;
    const typename F::M present[4] = {F::both(top, left), F::both(top, right), F::both(bottom, left),
                                      F::both(bottom, right)};
    const typename F::I offset[4] = {o00, F::add_int(o00, stride), o10, F::add_int(o10, stride)};
    for (int c = 0; c < 4; ++c) {
      if constexpr (SIZE == 0) F::store_int(corners.offset[c] + lane, F::select_int(present[c], offset[c], outside));
      else F::template store_rows<SIZE>(corners.row[c] + lane, offset[c], present[c], rows.first, rows.zeros);
    }
    const auto up = F::mul(a, gy), down = F::mul(a, fy);
    F::store(corners.weight[0] + lane, F::mul(up, gx)), F::store(corners.weight[1] + lane, F::mul(up, fx));
    F::store(corners.weight[2] + lane, F::mul(down, gx)), F::store(corners.weight[3] + lane, F::mul(down, fx));
    if (SIZE == 0) F::store(s.fx + i, fx), F::store(s.fy + i, fy), F::store(s.attention + i, a);
  }
}

// Gradients of locations and attention (or offsets, logits and reference points) of one query from `s.sums`.
template <class F, int REF>
inline void point_gradients(const Samples<typename F::Scalar>& s, int32_t no_row, const typename F::Scalar* xy,
                            const typename F::Scalar* reference, int levels, typename F::Scalar* grad_xy,
                            typename F::Scalar* grad_weights, bool shares) {
  using C = typename F::Scalar;
  const auto one = F::set(1), zero = F::set(0), step = F::set(static_cast<C>(0.5) / static_cast<C>(s.points));
  const auto outside = F::set_int(no_row);
  auto mean = F::set(0);
  for (int i = 0; i < s.count; i += F::W) {
    const int live = s.count - i < F::W ? s.count - i : F::W;
    typename F::V d[4];
    F::load_quads(s.sums + 4 * i, d[0], d[1], d[2], d[3]);
    for (int c = 0; c < 4; ++c) {
      const auto offset = F::load_int(s.corners[0][i / kPad].offset[c] + i % kPad);
      d[c] = F::select(F::less_int(offset, outside), d[c], zero);
    }
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

}  // namespace

// The kernels, once for every instruction set: a unit includes this file and exports one `Kernels` table.
//
// A query of one head reads levels * points samples, each of four rows of `channels` numbers. Positions, corner rows and
// weights of all samples are computed first, vectorised over samples; rows are then read without a branch, because a corner
// outside its map points at a row of zeros. The next query's samples are prepared before this one's rows are summed, so
// that its first rows are on their way meanwhile.
// Many queries read a head's values out of a dense block that fits the second-level cache (rows of one head lie
// heads * channels apart in the tensor, which wastes most cache sets). Few queries, head after head, read the tensor.
// The backward accumulates the value gradient in such a block too. One thread owns a block and walks the queries in
// order, so the sums are the same for any number of threads.
#pragma once

#include "ms_deform_attn_rows.h"

namespace {

using frozenmm::deform::Slice;

template <class A, class B> struct same_type { static constexpr bool value = false; };
template <class A> struct same_type<A, A> { static constexpr bool value = true; };

// What a packed slice reads and writes besides the block is asked for this many queries ahead.
constexpr int kQueriesAhead = 4;

template <class F, class R, class T, int REF>
struct Kernel {
  using C = typename F::Scalar;
  static constexpr int MAX = sizeof(typename R::V) == 64 && R::W >= 16 ? 8 : 4;
  static constexpr bool kSameType = same_type<C, T>::value;

  const Problem& p;
  const Slice& part;
  int count, levels;
  Samples<C> samples;

  // A query of one head.
  struct Unit {
    int64_t query, head;
  };

  Kernel(const Problem& problem, const Slice& slice)
      : p(problem), part(slice), count(static_cast<int>(problem.levels * problem.points)),
        levels(static_cast<int>(problem.levels)) {}

  const C* at(const void* base, Unit u, int64_t per_unit) const {
    return static_cast<const C*>(base) + ((part.image * p.queries + u.query) * p.heads + u.head) * per_unit;
  }
  C* at(void* base, Unit u, int64_t per_unit) const {
    return const_cast<C*>(at(static_cast<const void*>(base), u, per_unit));
  }
  const C* reference(Unit u) const {
    return REF == 0 ? nullptr
                    : static_cast<const C*>(p.reference) + (part.image * p.queries + u.query) * p.levels * REF;
  }
  const T* head_values(int64_t head) const {
    return static_cast<const T*>(p.value) + (part.image * p.keys * p.heads + head) * p.channels;
  }
  template <int SIZE>
  __attribute__((noinline)) void prepare_unit(const Rows& rows, Unit u, int turn = 0) const {
    prepare<F, REF, SIZE>(samples, samples.corners[turn], rows, at(p.locations, u, 2 * count), at(p.weights, u, count),
                          reference(u), levels);
  }

  // Asks for what a later query of this head reads and writes: heads lie side by side, so its queries are far apart.
  void fetch_unit(Unit u) const {
    fetch<0>(at(p.locations, u, 2 * count), 2 * count);
    fetch<0>(at(p.weights, u, count), count);
  }

  // Some channels of all queries and heads of the slice; rows are of type Row.
  template <int NV, class Row>
  void forward_units(Rows rows, int64_t channel, C* buffer) const {
    const int64_t live = p.channels - channel < NV * R::W ? p.channels - channel : NV * R::W;
    const bool in_place = kSameType && live == NV * R::W;
    const Row* first = static_cast<const Row*>(rows.first) + channel;
    const auto prepare_next = [&](Unit u, int turn) {
      rows.first = first + (u.head - part.first_head) * p.channels;  // a packed slice has one head
      prepare_unit<sizeof(Row)>(rows, u, turn);
    };
    Unit now{part.first_query, part.first_head};
    prepare_next(now, 0);
    for (int turn = 0; now.query < part.end_query; turn ^= 1) {
      Unit next{now.query, now.head + 1};
      if (next.head == part.end_head) next = {now.query + 1, part.first_head};
      if (next.query < part.end_query) prepare_next(next, turn ^ 1);
      const int64_t row = (part.image * p.queries + now.query) * p.heads + now.head;
      T* out = static_cast<T*>(p.output) + row * p.channels + channel;
      if (part.packed) {
        fetch_unit({now.query + kQueriesAhead, now.head});
        fetch<1>(out + kQueriesAhead * p.heads * p.channels, live);
      }
      C* target = in_place ? reinterpret_cast<C*>(out) : buffer;
      gather<R, NV, Row>(samples.corners[turn], count, target);
      if (!in_place) store_row(buffer, out, live);
      now = next;
    }
  }

  bool forward() {
    const int64_t padded = round_up(p.channels, R::W);
    Arena arena;
    C *block = nullptr, *buffer = nullptr;
    for (int pass = 0; pass < 2; ++pass) {
      arena.used = 0;
      samples.carve(arena, count);
      buffer = arena.take<C>(padded);
      block = arena.take<C>(part.packed ? (p.keys + 1) * padded : padded);
      if (pass == 0 && (arena.base = static_cast<char*>(p.workspace(arena.used))) == nullptr) return false;
    }
    samples.fill(p);
    if (!part.packed) {
      for (int64_t d = 0; d < padded; ++d) block[d] = 0;  // zeros are the same bits in every type
      const Rows rows{head_values(part.first_head), block, static_cast<int32_t>(p.heads * p.channels), 0};
      for_blocks<MAX>(padded, R::W, [&](auto vectors, int64_t channel) {
        if constexpr (!same_type<T, F16>::value) forward_units<decltype(vectors)::value, T>(rows, channel, buffer);
      });
    } else {
      pack<R>(head_values(part.first_head), block, p.keys, p.heads * p.channels, p.channels, padded);
      const Rows rows{block, block + p.keys * padded, static_cast<int32_t>(padded), 0};
      for_blocks<MAX>(padded, R::W, [&](auto vectors, int64_t channel) {
        forward_units<decltype(vectors)::value, C>(rows, channel, buffer);
      });
    }
    return true;
  }

  template <bool POINTS, bool VALUES>
  void backward_queries(const C* values, C* grad_values, C* grad, int64_t padded) const {
    const int64_t channels = part.end_channel - part.first_channel;
    const Rows rows{nullptr, nullptr, static_cast<int32_t>(padded), static_cast<int32_t>(p.keys * padded)};
    const T* grad_out = static_cast<const T*>(p.grad) + part.first_channel +
                        ((part.image * p.queries + part.first_query) * p.heads + part.first_head) * p.channels;
    for (int64_t q = part.first_query; q < part.end_query; ++q, grad_out += p.heads * p.channels) {
      const Unit u{q, part.first_head};
      prepare_unit<0>(rows, u);
      fetch<0>(grad_out + kQueriesAhead * p.heads * p.channels, channels);
      fetch_unit({q + kQueriesAhead, part.first_head});
      const bool in_place = kSameType && padded == channels;
      const C* g = in_place ? reinterpret_cast<const C*>(grad_out) : grad;
      if (!in_place)
        for (int64_t d = 0; d < padded; d += R::W) R::store(grad + d, load_row<R>(grad_out + d, channels - d));
      for_blocks<MAX>(padded, R::W, [&](auto vectors, int64_t channel) {
        scatter<R, decltype(vectors)::value, POINTS, VALUES>(samples, values + channel, grad_values + channel,
                                                             g + channel, channel == 0);
      });
      if (!POINTS) continue;
      point_gradients<F, REF>(samples, rows.outside, at(p.locations, u, 2 * count), reference(u), levels,
                              at(p.grad_locations, u, 2 * count), at(p.grad_weights, u, count),
                              p.grad_reference != nullptr);
      if (REF != 0 && p.grad_reference != nullptr) reference_gradient(u);
    }
  }

  void reference_gradient(Unit u) const {
    C* out = at(p.grad_reference, u, static_cast<int64_t>(levels) * REF);
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
    samples.fill(p);
    const int64_t row = p.heads * p.channels;
    if (part.point_grads) pack<R>(head_values(part.first_head) + part.first_channel, block, p.keys, row, channels, padded);
    if (part.value_grads) std::memset(grad_block, 0, sizeof(C) * size);
    if (part.point_grads && part.value_grads) backward_queries<true, true>(block, grad_block, buffer, padded);
    else if (part.point_grads) backward_queries<true, false>(block, grad_block, buffer, padded);
    else backward_queries<false, true>(block, grad_block, buffer, padded);
    if (part.value_grads) {
      T* out = static_cast<T*>(p.grad_value) + (part.image * p.keys * p.heads + part.first_head) * p.channels +
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

// Rows of whole vectors, and of a type that is cheap to convert at every read.
bool reads_tensor(const Problem& p) {
  const int floats = p.channels <= VecFHalf::W ? VecFHalf::W : VecF::W;
  const int width = p.storage == frozenmm::deform::Storage::f64 ? VecD::W : floats;
  return p.storage != frozenmm::deform::Storage::f16 && p.channels % width == 0;
}

bool forward(const Problem& p, const Slice& s) { return run_any(p, s, false); }
bool backward(const Problem& p, const Slice& s) { return run_any(p, s, true); }

}  // namespace

// The kernels, once for every instruction set: a unit includes this file and exports one `Kernels` table.
//
// A query of one head reads levels * points samples, each of four rows of `channels` numbers. Positions, corner rows and
// weights of all samples are computed first, vectorised over samples; rows are then read without a branch, because a corner
// outside its map points at a row of zeros. A head's values are packed into a dense block that fits the second-level cache
// (rows of one head lie heads * channels apart in the tensor, which wastes most cache sets).
// The backward accumulates the value gradient in such a block too. One thread owns a block and walks the queries in
// order, so the sums are the same for any number of threads.
#pragma once
#pragma once

#include "ms_deform_attn_rows.h"

namespace {

using frozenmm::deform::Slice;

template <class A, class B> struct same_type { static constexpr bool value = false; };
template <class A> struct same_type<A, A> { static constexpr bool value = true; };

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

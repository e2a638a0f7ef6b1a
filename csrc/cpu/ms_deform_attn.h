// What the operator entry points hand to the kernels of multi-scale deformable attention. Plain data only: this header is
// seen by units that are compiled with different instruction sets.
#pragma once

#include <cstdint>

namespace frozenmm::deform {

enum class Storage : int32_t { f32, f64, f16, bf16 };

// All tensors are contiguous. f16 and bf16 values are computed in float; locations and weights are float, or double with
// double values.
struct Problem {
  int64_t batch, keys, heads, channels, levels, points, queries;
  Storage storage;             // of value, output, grad, grad_value
  const void* value;           // [batch, keys, heads, channels]
  const int64_t* shapes;       // [levels, 2] as (height, width)
  const int64_t* starts;       // [levels]
  const void* locations;       // [batch, queries, heads, levels, points, 2]; offsets when `reference_size` is not 0
  const void* weights;         // [batch, queries, heads, levels * points]; logits when `reference_size` is not 0
  const void* reference;       // [batch, queries, levels, reference_size]
  int32_t reference_size;      // 0: locations and weights are ready; 2 or 4: reference points or boxes
  void* output;                // [batch, queries, heads * channels]
  const void* grad;            // as output
  void* grad_value;            // as value
  void* grad_locations;        // as locations
  void* grad_weights;          // as weights
  void* (*workspace)(int64_t bytes);  // memory of the calling thread, 64-byte aligned; null when there is none
  void* grad_reference;        // [batch, queries, heads, levels, reference_size] or null: shares of the heads
};

// One piece of work: some queries and channels of some heads. Pieces write disjoint memory.
struct Slice {
  int64_t image;
  int64_t first_head, end_head;  // one head, but for a forward that is not packed
  int64_t first_query, end_query;
  int64_t first_channel, end_channel;
  bool packed;               // forward: copy the head's values into one dense block first
  bool point_grads = false;  // backward: write the gradients of locations and weights (needs all channels)
  bool value_grads = false;  // backward: write the gradient of the values (needs all queries)
};

struct Kernels {
  const char* name;
  bool (*reads_tensor)(const Problem&);            // whether a forward can do without packing
  bool (*forward)(const Problem&, const Slice&);   // false: out of memory
  bool (*backward)(const Problem&, const Slice&);
};

extern const Kernels kernels_base;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace frozenmm::deform

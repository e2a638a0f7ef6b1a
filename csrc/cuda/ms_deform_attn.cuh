// Device code of multi-scale deformable attention.
//
// A group of 1 to 32 lanes of a warp serves one query of one head. Its lanes first split the samples among them: each
// lane computes cell, fractions and attention of its own sample, once, and hands them to the group by shuffles. Then
// the lanes split the channels, 16 bytes each. Sums are float (double for double values) whatever the type of the values.
//
// All lanes of a warp walk all loops together, because shuffles need them; a group past the last query works on query 0
// and writes nothing.
#pragma once

#include <cstdint>

#include "device.cuh"

namespace frozenmm::deform {

// C is float, or double with double values. Pointers are contiguous tensors, see csrc/cpu/ms_deform_attn.h.
template <class T, class C>
struct Arguments {
  const T* value;
  const int64_t *shapes, *starts;
  const C *locations, *weights, *reference;
  T* output;
  const T* grad;
  C* grad_sums;        // [batch, keys, heads, channels], zeroed: where atomics go; null in deterministic mode
  T* grad_value;       // deterministic mode: written by `own_rows`
  C *grad_locations, *grad_weights, *grad_reference;
  C* attention;        // deterministic mode, fused form: softmax of the logits, [batch, queries, heads, levels * points]
  int64_t groups;      // batch * queries * heads
  int64_t keys, queries;
  int heads, channels, levels, points, reference_size;
  int lanes;           // of a group: a power of two up to 32
};

constexpr unsigned kWarp = 0xffffffffu;

__device__ inline float to_real(float x) { return x; }
__device__ inline double to_real(double x) { return x; }
__device__ inline float to_real(__half x) { return __half2float(x); }
__device__ inline float to_real(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void from_real(float x, float& out) { out = x; }
__device__ inline void from_real(double x, double& out) { out = x; }
__device__ inline void from_real(float x, __half& out) { out = __float2half_rn(x); }
__device__ inline void from_real(float x, __nv_bfloat16& out) { out = __float2bfloat16_rn(x); }

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T items[N];
};

// One sample: the first cell's row of `value` (may lie before the map), corner bits, fractions and attention.
template <class C>
struct Sample {
  int row, width, corners;  // bits 0-3: (y0,x0) (y0,x1) (y1,x0) (y1,x1) lie in the map
  C fx, fy, attention;
};

// A sample that reads nothing.
template <class C>
__device__ inline Sample<C> nothing() {
  return Sample<C>{0, 1, 0, C(0), C(0), C(0)};
}

template <class C>
__device__ inline Sample<C> take(const Sample<C>& own, int from, int lanes) {
  Sample<C> s;
  s.row = __shfl_sync(kWarp, own.row, from, lanes);
  s.width = __shfl_sync(kWarp, own.width, from, lanes);
  s.corners = __shfl_sync(kWarp, own.corners, from, lanes);
  s.fx = __shfl_sync(kWarp, own.fx, from, lanes);
  s.fy = __shfl_sync(kWarp, own.fy, from, lanes);
  s.attention = __shfl_sync(kWarp, own.attention, from, lanes);
  return s;
}

template <class C>
__device__ inline C group_sum(C x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kWarp, x, step, 32);
  return x;
}

template <class C>
__device__ inline C group_max(C x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    const C other = __shfl_xor_sync(kWarp, x, step, 32);
    x = other > x ? other : x;
  }
  return x;
}

// Largest logit and 1 / sum of exponentials of one query and head; (0, 1) in the plain form.
template <class T, class C>
__device__ inline void softmax_terms(const Arguments<T, C>& a, int64_t group, int lane, C& top, C& scale) {
  top = 0, scale = 1;
  if (a.reference_size == 0) return;  // the same for all lanes of the grid
  const int count = a.levels * a.points;
  const C* logits = a.weights + group * count;
  top = logits[0];
  for (int i = lane; i < count; i += a.lanes) top = logits[i] > top ? logits[i] : top;
  top = group_max(top, a.lanes);
  C total = 0;
  for (int i = lane; i < count; i += a.lanes) total += exponential(logits[i] - top);
  scale = C(1) / group_sum(total, a.lanes);
}

template <class T, class C>
__device__ inline C attention_of(const Arguments<T, C>& a, int64_t group, int i, C top, C scale) {
  const C w = a.weights[group * a.levels * a.points + i];
  return a.reference_size == 0 ? w : exponential(w - top) * scale;
}

// Whether a level lies inside the rows of `value`. The numbers are read on the device only, where nothing can be refused in
// words, so samples of a level that does not are dropped. `keys` is below 2^31, so the product fits once each factor does.
template <class T, class C>
__device__ inline bool inside(const Arguments<T, C>& a, int level) {
  const int64_t h = a.shapes[2 * level], w = a.shapes[2 * level + 1], start = a.starts[level];
  return h > 0 && w > 0 && h <= a.keys && w <= a.keys && start >= 0 && start <= a.keys && h * w <= a.keys - start;
}

// Cell, fractions and corner bits of sample i; `attention` is set by the caller where the sample is inside.
template <class T, class C>
__device__ inline Sample<C> locate(const Arguments<T, C>& a, int64_t group, int i, C attention) {
  const int level = i / a.points;
  const int h = static_cast<int>(a.shapes[2 * level]), w = static_cast<int>(a.shapes[2 * level + 1]);
  const C* xy = a.locations + (group * a.levels * a.points + i) * 2;
  C px, py;
  if (a.reference_size == 0) {
    px = xy[0] * w - C(0.5), py = xy[1] * h - C(0.5);
  } else {
    const C* r = a.reference + ((group / a.heads) * a.levels + level) * a.reference_size;
    if (a.reference_size == 2) {
      px = r[0] * w + xy[0] - C(0.5), py = r[1] * h + xy[1] - C(0.5);
    } else {
      const C step = C(0.5) / a.points;
      px = (r[0] + xy[0] * step * r[2]) * w - C(0.5), py = (r[1] + xy[1] * step * r[3]) * h - C(0.5);
    }
  }
  Sample<C> s = nothing<C>();
  if (!inside(a, level)) return s;
  // Positive form: NaN and infinity fail it, and no index is ever made from them.
  if (!(px > C(-1) && py > C(-1) && px < C(w) && py < C(h))) return s;
  const C x0 = floor(px), y0 = floor(py);
  const int x = static_cast<int>(x0), y = static_cast<int>(y0);
  s.row = static_cast<int>(a.starts[level]) + y * w + x;
  s.width = w;
  s.fx = px - x0, s.fy = py - y0;
  s.attention = attention;
  const int left = x >= 0, right = x + 1 < w, top = y >= 0, bottom = y + 1 < h;
  s.corners = (top & left) | (top & right) << 1 | (bottom & left) << 2 | (bottom & right) << 3;
  return s;
}

template <class C>
__device__ inline void bilinear(const Sample<C>& s, C (&weight)[4]) {
  const C gx = C(1) - s.fx, gy = C(1) - s.fy;
  weight[0] = gy * gx, weight[1] = gy * s.fx, weight[2] = s.fy * gx, weight[3] = s.fy * s.fx;
}

template <class C>
__device__ inline int64_t corner_row(const Sample<C>& s, int c) {
  return static_cast<int64_t>(s.row) + (c & 1) + (c & 2 ? s.width : 0);
}

// ------------------------------------------------------------------------------------------------ forward
template <class T, class C, int N>
__global__ void __launch_bounds__(256) forward_kernel(const Arguments<T, C> a) {
  const int lane = threadIdx.x % a.lanes;
  int64_t group = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / a.lanes;
  const bool active = group < a.groups;
  if (!active) group = 0;
  const int count = a.levels * a.points, packs = a.channels / N;
  const int64_t row_size = static_cast<int64_t>(a.heads) * a.channels;
  const int64_t image = group / a.heads / a.queries;
  const T* head = a.value + image * a.keys * row_size + (group % a.heads) * a.channels;
  C top, scale;
  softmax_terms(a, group, lane, top, scale);
  for (int first = 0; first < packs; first += a.lanes) {
    const int pack = first + lane;
    const bool reads = active && pack < packs;
    C sum[N] = {};
    for (int base = 0; base < count; base += a.lanes) {
      Sample<C> own = nothing<C>();
      if (base + lane < count) own = locate(a, group, base + lane, attention_of(a, group, base + lane, top, scale));
      const int many = min(a.lanes, count - base);
      for (int j = 0; j < many; ++j) {
        const Sample<C> s = take(own, j, a.lanes);
        C weight[4];
        bilinear(s, weight);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (!reads || !(s.corners >> c & 1)) continue;
          const C w = weight[c] * s.attention;
          const auto v = *reinterpret_cast<const Pack<T, N>*>(head + corner_row(s, c) * row_size + pack * N);
#pragma unroll
          for (int k = 0; k < N; ++k) sum[k] += w * to_real(v.items[k]);
        }
      }
    }
    if (!reads) continue;  // the loop goes on for all lanes alike
    Pack<T, N> out;
#pragma unroll
    for (int k = 0; k < N; ++k) from_real(sum[k], out.items[k]);
    *reinterpret_cast<Pack<T, N>*>(a.output + group * a.channels + pack * N) = out;
  }
}

// ----------------------------------------------------------------------------------------------- backward
// Adds N numbers at once where the device can (vectors of four floats from sm_90 on).
template <int N>
__device__ inline void add_all(float* to, const float (&x)[N]) {
#if defined(FROZENMM_SM90)
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int k = 0; k < N; k += 4)
      atomicAdd(reinterpret_cast<float4*>(to + k), make_float4(x[k], x[k + 1], x[k + 2], x[k + 3]));
  } else {
    for (int k = 0; k < N; ++k) atomicAdd(to + k, x[k]);
  }
#else
#pragma unroll
  for (int k = 0; k < N; ++k) atomicAdd(to + k, x[k]);
#endif
}

template <int N>
__device__ inline void add_all(double* to, const double (&x)[N]) {
#pragma unroll
  for (int k = 0; k < N; ++k) atomicAdd(to + k, x[k]);
}

// Gradients of one query and head with respect to locations (or offsets, logits and reference points) of its samples.
template <class T, class C>
__device__ inline void write_points(const Arguments<T, C>& a, int64_t group, int i, C slope_x, C slope_y, C by_weight) {
  const int64_t at = group * a.levels * a.points + i;
  const int level = i / a.points;
  const C location_x = slope_x * static_cast<C>(a.shapes[2 * level + 1]);
  const C location_y = slope_y * static_cast<C>(a.shapes[2 * level]);
  C x = location_x, y = location_y;
  if (a.reference_size == 2) {
    x = slope_x, y = slope_y;
  } else if (a.reference_size == 4) {
    const C* r = a.reference + ((group / a.heads) * a.levels + level) * 4;
    const C step = C(0.5) / a.points;
    x = location_x * step * r[2], y = location_y * step * r[3];
  }
  a.grad_locations[2 * at] = x, a.grad_locations[2 * at + 1] = y;
  a.grad_weights[at] = by_weight;
  if (a.grad_reference == nullptr) return;
  // Heads and points share a reference point. Left as one share for each sample; the host adds them up in fixed order.
  C* share = a.grad_reference + at * a.reference_size;
  share[0] = location_x, share[1] = location_y;
  if (a.reference_size == 4) {
    const C step = C(0.5) / a.points;
    share[2] = location_x * step * a.locations[2 * at], share[3] = location_y * step * a.locations[2 * at + 1];
  }
}

template <class T, class C, int N>
__global__ void __launch_bounds__(256) backward_kernel(const Arguments<T, C> a) {
  const int lane = threadIdx.x % a.lanes;
  int64_t group = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / a.lanes;
  const bool active = group < a.groups;
  if (!active) group = 0;
  const int count = a.levels * a.points, packs = a.channels / N;
  const int64_t row_size = static_cast<int64_t>(a.heads) * a.channels;
  const int64_t head = (group / a.heads / a.queries) * a.keys * row_size + (group % a.heads) * a.channels;
  const T* grad = a.grad + group * a.channels;
  C top, scale, mean = 0;
  softmax_terms(a, group, lane, top, scale);
  for (int base = 0; base < count; base += a.lanes) {
    const bool mine = base + lane < count;
    Sample<C> own = nothing<C>();
    C probability = 0;
    if (mine) {
      probability = attention_of(a, group, base + lane, top, scale);
      own = locate(a, group, base + lane, probability);
    }
    C own_x = 0, own_y = 0, own_weight = 0;
    const int many = min(a.lanes, count - base);
    for (int j = 0; j < many; ++j) {
      const Sample<C> s = take(own, j, a.lanes);
      C weight[4], dot[4] = {};
      bilinear(s, weight);
      for (int pack = lane; active && pack < packs; pack += a.lanes) {
        const auto g = *reinterpret_cast<const Pack<T, N>*>(grad + pack * N);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (!(s.corners >> c & 1)) continue;
          const int64_t at = head + corner_row(s, c) * row_size + pack * N;
          const auto v = *reinterpret_cast<const Pack<T, N>*>(a.value + at);
          const C w = weight[c] * s.attention;
          C share[N];
#pragma unroll
          for (int k = 0; k < N; ++k) {
            const C gk = to_real(g.items[k]);
            dot[c] += gk * to_real(v.items[k]);
            share[k] = w * gk;
          }
          if (a.grad_sums != nullptr) add_all<N>(a.grad_sums + at, share);
        }
      }
      const C gx = C(1) - s.fx, gy = C(1) - s.fy;
      const C by_weight = group_sum(gy * (gx * dot[0] + s.fx * dot[1]) + s.fy * (gx * dot[2] + s.fx * dot[3]), a.lanes);
      const C slope_x = group_sum(s.attention * (gy * (dot[1] - dot[0]) + s.fy * (dot[3] - dot[2])), a.lanes);
      const C slope_y = group_sum(s.attention * (gx * (dot[2] - dot[0]) + s.fx * (dot[3] - dot[1])), a.lanes);
      if (lane == j) own_x = slope_x, own_y = slope_y, own_weight = by_weight;
    }
    if (mine && active) {
      write_points(a, group, base + lane, own_x, own_y, own_weight);
      if (a.attention != nullptr) a.attention[group * count + base + lane] = probability;
      mean += probability * own_weight;
    }
  }
  if (a.reference_size == 0) return;  // all lanes alike
  mean = group_sum(mean, a.lanes);
  for (int i = lane; active && i < count; i += a.lanes) {  // each lane reads what it wrote itself
    C& g = a.grad_weights[group * count + i];
    g = attention_of(a, group, i, top, scale) * (g - mean);
  }
}

// ------------------------------------------------------------------------------------- deterministic values
constexpr int kOwners = 8;              // warps of a block of `own_rows`
constexpr int kBatch = 32 * kOwners;    // samples looked at together

// Gradient of the values without atomics: a block owns `rows` consecutive rows of one head, holds their sums in shared
// memory, and walks the samples of the levels it touches in order. A row belongs to one warp, so each sum has one order.
template <class T, class C>
__global__ void __launch_bounds__(kBatch) own_rows(const Arguments<T, C> a, int rows) {
  C* sums = device::dynamic_shared<C>();  // [rows][channels]
  __shared__ Sample<C> hit[kBatch];
  __shared__ int hit_query[kBatch];
  __shared__ int hits_of_warp[kOwners];
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int head = blockIdx.y % a.heads;
  const int64_t image = blockIdx.y / a.heads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * rows;
  const int64_t end = first + rows < a.keys ? first + rows : a.keys;
  const int count = a.levels * a.points;
  for (int64_t i = thread; i < static_cast<int64_t>(rows) * a.channels; i += kBatch) sums[i] = C(0);
  for (int level = 0; level < a.levels; ++level) {
    if (!inside(a, level)) continue;  // all threads of the block alike
    const int64_t start = a.starts[level], size = a.shapes[2 * level] * a.shapes[2 * level + 1];
    if (start >= end || start + size <= first) continue;  // all threads of the block alike
    const int64_t samples = a.queries * a.points;
    for (int64_t base = 0; base < samples; base += kBatch) {
      __syncthreads();  // the list of the last round has been read (and the sums are zero)
      const int64_t n = base + thread;
      Sample<C> s = nothing<C>();
      int64_t query = 0;
      bool touches = false;
      if (n < samples) {
        query = n / a.points;
        const int i = level * a.points + static_cast<int>(n % a.points);
        const int64_t group = (image * a.queries + query) * a.heads + head;
        const C* attention = a.attention != nullptr ? a.attention : a.weights;
        s = locate(a, group, i, attention[group * count + i]);
        for (int c = 0; c < 4; ++c) {
          const int64_t row = corner_row(s, c);
          touches = touches || ((s.corners >> c & 1) && row >= first && row < end);
        }
      }
      const unsigned votes = __ballot_sync(kWarp, touches);
      if (lane == 0) hits_of_warp[warp] = __popc(votes);
      __syncthreads();
      int before = __popc(votes & ((1u << lane) - 1)), total = 0;
      for (int k = 0; k < kOwners; ++k) {
        if (k < warp) before += hits_of_warp[k];
        total += hits_of_warp[k];
      }
      if (touches) hit[before] = s, hit_query[before] = static_cast<int>(query);
      __syncthreads();
      for (int k = 0; k < total; ++k) {
        const Sample<C> one = hit[k];
        const int64_t group = (image * a.queries + hit_query[k]) * a.heads + head;
        C weight[4];
        bilinear(one, weight);
        for (int c = 0; c < 4; ++c) {
          const int64_t row = corner_row(one, c);
          if (!(one.corners >> c & 1) || row < first || row >= end || (row - first) % kOwners != warp) continue;
          C* target = sums + (row - first) * a.channels;
          const C w = weight[c] * one.attention;
          for (int d = lane; d < a.channels; d += 32) target[d] += w * to_real(a.grad[group * a.channels + d]);
        }
      }
    }
  }
  __syncthreads();
  for (int64_t i = thread; i < (end - first) * a.channels; i += kBatch) {
    const int64_t row = first + i / a.channels, d = i % a.channels;
    from_real(sums[i], a.grad_value[((image * a.keys + row) * a.heads + head) * a.channels + d]);
  }
}

}  // namespace frozenmm::deform

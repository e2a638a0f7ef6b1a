// Entry points of frozenmm::ms_deform_attn and its fused form on CPU: checks, choice of kernels, division of the work.
// The schemas are defined in Python (frozenmm/ops/ms_deform_attn.py); this library adds the implementations for CPU.
#include "ms_deform_attn.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <tuple>
#include <vector>

#include "../ms_deform_attn_inputs.h"
#include "cpu_features.h"
#include "workspace.h"

namespace {

using frozenmm::deform::Inputs;
using frozenmm::deform::Kernels;
using frozenmm::deform::Problem;
using frozenmm::deform::Slice;
using frozenmm::deform::Storage;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

const Kernels& kernels() {
#if defined(__x86_64__)  // elsewhere the build leaves the units of x86 out
  switch (frozenmm::cpu::level()) {
    case frozenmm::cpu::Level::avx512: return frozenmm::deform::kernels_avx512;
    case frozenmm::cpu::Level::avx2: return frozenmm::deform::kernels_avx2;
    default: break;
  }
#endif
  return frozenmm::deform::kernels_base;
}

Storage storage_of(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return Storage::f64;
    case ScalarType::Half: return Storage::f16;
    case ScalarType::BFloat16: return Storage::bf16;
    default: return Storage::f32;
  }
}

void check_maps(const char* op, const Problem& p) {
  int64_t total = 0;
  for (int64_t l = 0; l < p.levels; ++l) {
    const int64_t height = p.shapes[2 * l], width = p.shapes[2 * l + 1];
    STD_TORCH_CHECK(height > 0 && width > 0, op, ": spatial_shapes must be positive, level ", l, " is ", height, " x ",
                    width);
    // each factor first: their product may not fit into 64 bits
    STD_TORCH_CHECK(height <= p.keys && width <= p.keys / height, op, ": value has ", p.keys,
                    " rows, fewer than level ", l, " of ", height, " x ", width, " alone");
    STD_TORCH_CHECK(p.starts[l] == total, op, ": level_start_index must be the exclusive prefix sum of height * width; ",
                    "level ", l, " must start at ", total, ", got ", p.starts[l]);
    total += height * width;
  }
  STD_TORCH_CHECK(total == p.keys, op, ": value has ", p.keys, " rows but spatial_shapes add up to ", total);
}

// The checked tensors of one call and what the kernels need to know of them.
struct Call : Inputs {
  Problem p{};

  Call(const char* name, const Tensor& v, const Tensor& s, const Tensor& st, const Tensor& loc, const Tensor& w,
       const Tensor* ref)
      : Inputs(name, v, s, st, loc, w, ref) {
    p.batch = batch, p.keys = keys, p.heads = heads, p.channels = channels;
    p.queries = queries, p.levels = levels, p.points = points;
    p.storage = storage_of(value.scalar_type());
    p.value = value.const_data_ptr(), p.locations = locations.const_data_ptr(), p.weights = weights.const_data_ptr();
    p.shapes = static_cast<const int64_t*>(shapes.const_data_ptr());
    p.starts = static_cast<const int64_t*>(starts.const_data_ptr());
    p.reference_size = reference_size;
    p.reference = ref ? reference.const_data_ptr() : nullptr;
    p.workspace = frozenmm::cpu::workspace;
    check_maps(op, p);
    constexpr int64_t kLimit = int64_t{1} << 31;
    STD_TORCH_CHECK((p.keys + 1) * (p.channels + 15) < kLimit, op, ": value has more than 2^31 numbers in one head");
  }
};

// Runs `kernel` on every slice; the slices write disjoint memory, so their order does not matter.
void run(const char* op, const Problem& p, const std::vector<Slice>& slices,
         bool (*kernel)(const Problem&, const Slice&)) {
  std::atomic<bool> complete{true};
  torch::stable::parallel_for(0, static_cast<int64_t>(slices.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (!kernel(p, slices[i])) complete = false;
  });
  STD_TORCH_CHECK(complete, op, ": out of memory for the working block of a head");
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Threads worth using: a thread should have at least some 16 thousand channel reads to do.
int64_t threads_for(const Problem& p) {
  const int64_t work = p.batch * p.queries * p.heads * p.levels * p.points * p.channels;
  return std::clamp<int64_t>(work / 16384, 1, torch::stable::get_num_threads());
}

Tensor forward(Call& call) {
  Problem& p = call.p;
  Tensor output = torch::stable::new_empty(call.value, {p.batch, p.queries, p.heads * p.channels});
  if (output.numel() == 0) return output;
  p.output = output.mutable_data_ptr();
  // Packing moves every row once, out of the nearest cache that holds all of them; a sample reads four rows, from that cache
  // or from the packed block. Measured on AVX-512 with 8 heads of 32 channels, packing pays from here on.
  const bool too_far = p.keys * p.heads * p.channels >= (int64_t{1} << 31);
  const bool packed = too_far || !kernels().reads_tensor(p) || 4 * p.queries * p.levels * p.points >= 9 * p.keys;
  const int64_t span = packed ? 1 : p.heads;
  const int64_t units = p.batch * p.heads / span, threads = threads_for(p);
  const int64_t pieces = std::min(p.queries, units >= threads ? 1 : divide_up(threads, units));
  const int64_t length = divide_up(p.queries, pieces);
  std::vector<Slice> slices;
  for (int64_t image = 0; image < p.batch; ++image)
    for (int64_t head = 0; head < p.heads; head += span)
      for (int64_t q = 0; q < p.queries; q += length)
        slices.push_back({image, head, head + span, q, std::min(q + length, p.queries), 0, p.channels, packed});
  if (threads == 1) {
    for (const Slice& s : slices)
      STD_TORCH_CHECK(kernels().forward(p, s), call.op, ": out of memory for the working block of a head");
  } else {
    run(call.op, p, slices, kernels().forward);
  }
  return output;
}

// Gradients of value, locations and weights; p.grad_reference may be set by the caller.
std::tuple<Tensor, Tensor, Tensor> backward(Call& call, const Tensor& grad_in) {
  Problem& p = call.p;
  const Tensor grad = call.expect_grad(grad_in);
  Tensor grad_value = torch::stable::empty_like(call.value), grad_locations = torch::stable::empty_like(call.locations),
         grad_weights = torch::stable::empty_like(call.weights);
  if (grad.numel() == 0) {
    torch::stable::zero_(grad_value);
    return {grad_value, grad_locations, grad_weights};
  }
  p.grad = grad.const_data_ptr(), p.grad_value = grad_value.mutable_data_ptr();
  p.grad_locations = grad_locations.mutable_data_ptr(), p.grad_weights = grad_weights.mutable_data_ptr();
  const int64_t units = p.batch * p.heads, threads = threads_for(p);
  std::vector<Slice> slices;
  if (units >= threads) {
    for (int64_t u = 0; u < units; ++u)
      slices.push_back({u / p.heads, u % p.heads, u % p.heads + 1, 0, p.queries, 0, p.channels, true, true, true});
  } else {
    // Fewer heads than threads: split queries for the gradients of the points and channels for those of the values.
    // Neither changes the order of any sum.
    const int64_t pieces = divide_up(threads, units), length = divide_up(p.queries, pieces);
    const int64_t block = std::max<int64_t>(16, divide_up(divide_up(p.channels, pieces), 16) * 16);
    for (int64_t u = 0; u < units; ++u) {
      const int64_t image = u / p.heads, head = u % p.heads;
      for (int64_t q = 0; q < p.queries; q += length)
        slices.push_back({image, head, head + 1, q, std::min(q + length, p.queries), 0, p.channels, true, true, false});
      for (int64_t d = 0; d < p.channels; d += block)
        slices.push_back({image, head, head + 1, 0, p.queries, d, std::min(d + block, p.channels), true, false, true});
    }
  }
  if (threads == 1) {
    for (const Slice& s : slices)
      STD_TORCH_CHECK(kernels().backward(p, s), call.op, ": out of memory for the working block of a head");
  } else {
    run(call.op, p, slices, kernels().backward);
  }
  return {grad_value, grad_locations, grad_weights};
}

Tensor ms_deform_attn(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
                      const Tensor& weights) {
  Call call("ms_deform_attn", value, shapes, starts, locations, weights, nullptr);
  return forward(call);
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_bwd(const Tensor& grad, const Tensor& value, const Tensor& shapes,
                                                      const Tensor& starts, const Tensor& locations,
                                                      const Tensor& weights, bool) {
  Call call("ms_deform_attn_bwd", value, shapes, starts, locations, weights, nullptr);
  return backward(call, grad);
}

Tensor ms_deform_attn_fused(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& reference,
                            const Tensor& offsets, const Tensor& logits) {
  Call call("ms_deform_attn_fused", value, shapes, starts, offsets, logits, &reference);
  return forward(call);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_deform_attn_fused_bwd(const Tensor& grad, const Tensor& value,
                                                                    const Tensor& shapes, const Tensor& starts,
                                                                    const Tensor& reference, const Tensor& offsets,
                                                                    const Tensor& logits, bool reference_grad, bool) {
  Call call("ms_deform_attn_fused_bwd", value, shapes, starts, offsets, logits, &reference);
  Problem& p = call.p;
  if (!reference_grad) {
    auto [grad_value, grad_offsets, grad_logits] = backward(call, grad);
    return {grad_value, torch::stable::new_empty(call.reference, {0}), grad_offsets, grad_logits};
  }
  Tensor shares = torch::stable::new_empty(call.reference, {p.batch, p.queries, p.heads, p.levels, p.reference_size});
  p.grad_reference = shares.mutable_data_ptr();
  auto [grad_value, grad_offsets, grad_logits] = backward(call, grad);
  const int64_t axis[] = {2};
  return {grad_value, torch::stable::sum(shares, torch::headeronly::IntHeaderOnlyArrayRef(axis, 1)), grad_offsets,
          grad_logits};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&ms_deform_attn));
  m.impl("ms_deform_attn_bwd", TORCH_BOX(&ms_deform_attn_bwd));
  m.impl("ms_deform_attn_fused", TORCH_BOX(&ms_deform_attn_fused));
  m.impl("ms_deform_attn_fused_bwd", TORCH_BOX(&ms_deform_attn_fused_bwd));
}

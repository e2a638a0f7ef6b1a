// Entry points of frozenmm::ms_deform_attn and its fused form on CUDA devices. The schemas are defined in Python.
//
// Nothing here reads a tensor on the host: calls can be captured in a CUDA graph. Samples of levels that `spatial_shapes` and
// `level_start_index` put outside the rows of `value` are dropped, because the kernels use both on the device only.
// The library names no symbol of a CUDA build of torch, so it also loads beside a CPU build (a test does that).
#include "ms_deform_attn.cuh"

#include <algorithm>
#include <limits>
#include <tuple>

#include "../ms_deform_attn_inputs.h"

namespace {

using namespace frozenmm::deform;
using frozenmm::device::check_launch;
using frozenmm::device::launch;
using frozenmm::device::stream_of;

constexpr int kThreads = 256;
constexpr int kSharedBytes = 32 * 1024;  // with the list of samples (up to 11 KiB) less than the 48 KiB always granted

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool aligned(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0; }

template <class T, class C>
Arguments<T, C> arguments(const Inputs& in) {
  STD_TORCH_CHECK(in.keys < std::numeric_limits<int32_t>::max() && in.queries < std::numeric_limits<int32_t>::max() &&
                      in.heads * in.channels < std::numeric_limits<int32_t>::max() &&
                      in.levels * in.points < std::numeric_limits<int32_t>::max(),
                  in.op, ": value is too large for the CUDA kernels (2^31 rows, channels, queries or samples)");
  Arguments<T, C> a{};
  a.value = static_cast<const T*>(in.value.const_data_ptr());
  a.shapes = static_cast<const int64_t*>(in.shapes.const_data_ptr());
  a.starts = static_cast<const int64_t*>(in.starts.const_data_ptr());
  a.locations = static_cast<const C*>(in.locations.const_data_ptr());
  a.weights = static_cast<const C*>(in.weights.const_data_ptr());
  a.reference = in.reference_size ? static_cast<const C*>(in.reference.const_data_ptr()) : nullptr;
  a.groups = in.batch * in.queries * in.heads, a.keys = in.keys, a.queries = in.queries;
  a.heads = static_cast<int>(in.heads), a.channels = static_cast<int>(in.channels);
  a.levels = static_cast<int>(in.levels), a.points = static_cast<int>(in.points);
  a.reference_size = in.reference_size;
  return a;
}

// Lanes that read `packs` packs side by side: the next power of two, at most a warp.
int lanes_for(int64_t packs) {
  int lanes = 1;
  while (lanes < packs && lanes < 32) lanes *= 2;
  return lanes;
}

unsigned blocks_for(const char* op, int64_t groups, int lanes) {
  const int64_t blocks = divide_up(groups * lanes, kThreads);
  STD_TORCH_CHECK(blocks < std::numeric_limits<int32_t>::max(), op, ": too many queries for one launch");
  return static_cast<unsigned>(blocks);
}

template <class T, class C>
void run_forward(const Inputs& in, Tensor& output) {
  auto a = arguments<T, C>(in);
  a.output = static_cast<T*>(output.mutable_data_ptr());
  constexpr int kWide = 16 / sizeof(T);
  const bool wide = in.channels % kWide == 0 && aligned(in.value) && aligned(output);
  a.lanes = lanes_for(in.channels / (wide ? kWide : 1));
  const unsigned blocks = blocks_for(in.op, a.groups, a.lanes);
  const cudaStream_t stream = stream_of(in.value);
  if (wide) launch(forward_kernel<T, C, kWide>, blocks, kThreads, 0, stream, a);
  else launch(forward_kernel<T, C, 1>, blocks, kThreads, 0, stream, a);
  check_launch(in.op);
}

struct Gradients {
  Tensor value, locations, weights, reference;
};

template <class T, class C>
void run_own_rows(const Inputs& in, const Arguments<T, C>& a) {
  if (in.keys == 0) return;
  const int64_t row_bytes = in.channels * static_cast<int64_t>(sizeof(C));
  STD_TORCH_CHECK(row_bytes <= kSharedBytes, in.op, ": the deterministic mode takes at most ",
                  kSharedBytes / sizeof(C), " channels in a head, got ", in.channels);
  STD_TORCH_CHECK(in.batch * in.heads <= 65535, in.op, ": the deterministic mode takes at most 65535 images * heads");
  const int rows = static_cast<int>(std::min<int64_t>(in.keys, kSharedBytes / row_bytes));
  const dim3 blocks(static_cast<unsigned>(divide_up(in.keys, rows)), static_cast<unsigned>(in.batch * in.heads));
  launch(own_rows<T, C>, blocks, kBatch, static_cast<size_t>(rows) * row_bytes, stream_of(in.value), a, rows);
  check_launch(in.op);
}

template <class T, class C>
void run_backward(const Inputs& in, const Tensor& grad, bool deterministic, bool reference_grad, Gradients& out) {
  constexpr ScalarType kReal = sizeof(C) == 8 ? ScalarType::Double : ScalarType::Float;
  auto a = arguments<T, C>(in);
  a.grad = static_cast<const T*>(grad.const_data_ptr());
  a.grad_locations = static_cast<C*>(out.locations.mutable_data_ptr());
  a.grad_weights = static_cast<C*>(out.weights.mutable_data_ptr());
  Tensor sums = out.value, attention = out.weights, shares = out.reference;
  if (reference_grad) {
    shares = torch::stable::new_empty(
        in.reference, {in.batch, in.queries, in.heads, in.levels, in.points, int64_t{in.reference_size}});
    a.grad_reference = static_cast<C*>(shares.mutable_data_ptr());
  }
  if (deterministic) {
    a.grad_value = static_cast<T*>(out.value.mutable_data_ptr());
    if (in.reference_size) {
      attention = torch::stable::empty_like(in.weights);
      a.attention = static_cast<C*>(attention.mutable_data_ptr());
    }
  } else {
    sums = torch::stable::new_zeros(in.value, {in.batch, in.keys, in.heads, in.channels}, kReal);
    a.grad_sums = static_cast<C*>(sums.mutable_data_ptr());
  }
  constexpr int kWide = 16 / sizeof(T);
  const bool wide = in.channels % kWide == 0 && aligned(in.value) && aligned(grad);
  a.lanes = lanes_for(in.channels / (wide ? kWide : 1));
  const unsigned blocks = blocks_for(in.op, a.groups, a.lanes);
  const cudaStream_t stream = stream_of(in.value);
  if (wide) launch(backward_kernel<T, C, kWide>, blocks, kThreads, 0, stream, a);
  else launch(backward_kernel<T, C, 1>, blocks, kThreads, 0, stream, a);
  check_launch(in.op);
  if (deterministic) run_own_rows<T, C>(in, a);
  else out.value = torch::stable::to(sums, in.value.scalar_type());
  if (reference_grad) {
    const int64_t axes[] = {2, 4};
    out.reference = torch::stable::sum(shares, torch::headeronly::IntHeaderOnlyArrayRef(axes, 2));
  }
}

Tensor forward(const Inputs& in) {
  const frozenmm::device::Guard guard(in.value.get_device_index());
  Tensor output = torch::stable::new_empty(in.value, {in.batch, in.queries, in.heads * in.channels});
  if (output.numel() == 0) return output;
  switch (in.value.scalar_type()) {
    case ScalarType::Double: run_forward<double, double>(in, output); break;
    case ScalarType::Half: run_forward<__half, float>(in, output); break;
    case ScalarType::BFloat16: run_forward<__nv_bfloat16, float>(in, output); break;
    default: run_forward<float, float>(in, output); break;
  }
  return output;
}

Gradients backward(const Inputs& in, const Tensor& grad_in, bool deterministic, bool reference_grad) {
  const frozenmm::device::Guard guard(in.value.get_device_index());
  const Tensor grad = in.expect_grad(grad_in);
  Gradients out{deterministic ? torch::stable::empty_like(in.value) : in.value, torch::stable::empty_like(in.locations),
                torch::stable::empty_like(in.weights),
                reference_grad ? torch::stable::empty_like(in.reference) : torch::stable::new_empty(in.reference, {0})};
  if (grad.numel() == 0) {
    out.value = torch::stable::new_zeros(in.value, {in.batch, in.keys, in.heads, in.channels});
    return out;
  }
  switch (in.value.scalar_type()) {
    case ScalarType::Double: run_backward<double, double>(in, grad, deterministic, reference_grad, out); break;
    case ScalarType::Half: run_backward<__half, float>(in, grad, deterministic, reference_grad, out); break;
    case ScalarType::BFloat16: run_backward<__nv_bfloat16, float>(in, grad, deterministic, reference_grad, out); break;
    default: run_backward<float, float>(in, grad, deterministic, reference_grad, out); break;
  }
  return out;
}

Tensor ms_deform_attn(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
                      const Tensor& weights) {
  return forward(Inputs("ms_deform_attn", value, shapes, starts, locations, weights, nullptr));
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_bwd(const Tensor& grad, const Tensor& value, const Tensor& shapes,
                                                      const Tensor& starts, const Tensor& locations,
                                                      const Tensor& weights, bool deterministic) {
  const Inputs in("ms_deform_attn_bwd", value, shapes, starts, locations, weights, nullptr);
  const Gradients out = backward(in, grad, deterministic, false);
  return {out.value, out.locations, out.weights};
}

Tensor ms_deform_attn_fused(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& reference,
                            const Tensor& offsets, const Tensor& logits) {
  return forward(Inputs("ms_deform_attn_fused", value, shapes, starts, offsets, logits, &reference));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_deform_attn_fused_bwd(const Tensor& grad, const Tensor& value,
                                                                    const Tensor& shapes, const Tensor& starts,
                                                                    const Tensor& reference, const Tensor& offsets,
                                                                    const Tensor& logits, bool reference_grad,
                                                                    bool deterministic) {
  const Inputs in("ms_deform_attn_fused_bwd", value, shapes, starts, offsets, logits, &reference);
  const Gradients out = backward(in, grad, deterministic, reference_grad);
  return {out.value, out.reference, out.locations, out.weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(frozenmm, FROZENMM_DISPATCH_KEY, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&ms_deform_attn));
  m.impl("ms_deform_attn_bwd", TORCH_BOX(&ms_deform_attn_bwd));
  m.impl("ms_deform_attn_fused", TORCH_BOX(&ms_deform_attn_fused));
  m.impl("ms_deform_attn_fused_bwd", TORCH_BOX(&ms_deform_attn_fused_bwd));
}

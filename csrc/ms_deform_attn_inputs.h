// Checks of the tensors that frozenmm::ms_deform_attn and its fused and backward forms get, for every device. Nothing here
// reads the numbers of a tensor, so it neither waits for a GPU nor breaks the capture of a graph.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

namespace frozenmm::deform {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::vector<int64_t> sizes_of(const Tensor& t) {
  const auto s = t.sizes();
  return std::vector<int64_t>(s.begin(), s.end());
}

inline std::string text(const std::vector<int64_t>& sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
  return out + "]";
}

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Bool: return "bool";
    default: return "another type";
  }
}

// The tensors of one call, contiguous, with their sizes.
struct Inputs {
  const char* op;
  Tensor value, shapes, starts, locations, weights, reference;  // `reference` is `locations` in the plain form
  int64_t batch, keys, heads, channels, queries, levels, points;
  int32_t reference_size = 0;  // 0 in the plain form, else 2 or 4

  Inputs(const char* name, const Tensor& v, const Tensor& s, const Tensor& st, const Tensor& loc, const Tensor& w,
         const Tensor* ref)
      : op(name), value(torch::stable::contiguous(v)), shapes(torch::stable::contiguous(s)),
        starts(torch::stable::contiguous(st)), locations(torch::stable::contiguous(loc)),
        weights(torch::stable::contiguous(w)), reference(ref ? torch::stable::contiguous(*ref) : locations) {
    const char* loc_name = ref ? "sampling_offsets" : "sampling_locations";
    const char* weight_name = ref ? "attention_logits" : "attention_weights";
    STD_TORCH_CHECK(v.dim() == 4, op, ": value must have 4 axes [B, S, H, D], got ", text(sizes_of(v)));
    STD_TORCH_CHECK(loc.dim() == 6, op, ": ", loc_name, " must have 6 axes [B, Q, H, L, P, 2], got ",
                    text(sizes_of(loc)));
    batch = v.size(0), keys = v.size(1), heads = v.size(2), channels = v.size(3);
    queries = loc.size(1), levels = loc.size(3), points = loc.size(4);
    STD_TORCH_CHECK(heads >= 1 && channels >= 1 && levels >= 1 && points >= 1, op,
                    ": heads, channels, levels and points must be at least 1, value is ", text(sizes_of(v)), ", ",
                    loc_name, " is ", text(sizes_of(loc)));
    const ScalarType type = v.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
                        type == ScalarType::BFloat16,
                    op, ": value must be float32, float64, float16 or bfloat16, got ", dtype_name(type));
    const ScalarType real = type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    expect("spatial_shapes", s, ScalarType::Long, {levels, 2});
    expect("level_start_index", st, ScalarType::Long, {levels});
    expect(loc_name, loc, real, {batch, queries, heads, levels, points, 2});
    if (ref) {
      expect(weight_name, w, real, {batch, queries, heads, levels * points});
      STD_TORCH_CHECK(ref->dim() == 4 && (ref->size(3) == 2 || ref->size(3) == 4), op,
                      ": reference_points must have shape [B, Q, L, 2] or [B, Q, L, 4], got ", text(sizes_of(*ref)));
      reference_size = static_cast<int32_t>(ref->size(3));
      expect("reference_points", *ref, real, {batch, queries, levels, reference_size});
    } else {
      expect(weight_name, w, real, {batch, queries, heads, levels, points});
    }
    // empty tensors may have axes of any length; what is computed from them has to fit all the same
    const int64_t images = std::max<int64_t>(batch, 1), rows = std::max<int64_t>(queries, 1);
    check_product("value", {heads, channels, images, std::max<int64_t>(keys, 1)});
    check_product(loc_name, {2, heads, levels, points, images, rows});
    check_product("the output", {heads, channels, images, rows});
  }

  void check_product(const char* what, std::initializer_list<int64_t> sizes) const {
    int64_t product = 64;  // room for bytes and lanes
    for (const int64_t size : sizes)
      STD_TORCH_CHECK(!__builtin_mul_overflow(product, size, &product), op, ": ", what, " would have more than 2^57 "
                      "numbers, value is ", text(sizes_of(value)));
  }

  void expect(const char* argument, const Tensor& t, ScalarType type, const std::vector<int64_t>& sizes) const {
    STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", argument, " must be ", dtype_name(type), ", got ",
                    dtype_name(t.scalar_type()));
    STD_TORCH_CHECK(sizes_of(t) == sizes, op, ": ", argument, " must have shape ", text(sizes), ", got ",
                    text(sizes_of(t)));
    STD_TORCH_CHECK(t.is_cuda() == value.is_cuda() && t.get_device_index() == value.get_device_index(), op, ": ",
                    argument, " must be on the device of value");
  }

  Tensor expect_grad(const Tensor& grad) const {
    expect("grad", grad, value.scalar_type(), {batch, queries, heads * channels});
    return torch::stable::contiguous(grad);
  }
};

}  // namespace frozenmm::deform

// What the entry points of operators on whole frames share: checked inputs, and pieces of work side by side.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace frozenmm::cpu {

// The tensor, contiguous; an error that names operator and argument if it lies elsewhere or has another type or shape.
inline torch::stable::Tensor checked(const char* op, const char* name, const torch::stable::Tensor& tensor,
                                     torch::headeronly::ScalarType type, const std::vector<int64_t>& sizes) {
  STD_TORCH_CHECK(tensor.is_cpu(), op, ": ", name, " must be on the CPU");
  STD_TORCH_CHECK(tensor.scalar_type() == type, op, ": ", name, " has the wrong type");
  bool same = tensor.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; same && i < sizes.size(); ++i) same = tensor.size(i) == sizes[i];
  STD_TORCH_CHECK(same, op, ": ", name, " has the wrong shape");
  return torch::stable::contiguous(tensor);
}

// work(0) ... work(count - 1), divided among the threads.
template <class Work>
void each(int64_t count, const Work& work) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) work(i);
  });
}

}  // namespace frozenmm::cpu

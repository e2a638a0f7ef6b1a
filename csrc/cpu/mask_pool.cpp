// Mask pooling on the CPU: logits are resized only at the cells that the features have. float32 means come from the
// kernels in mask_body_pool.h; float64 and the backward pass are one matrix product.
#include "../mask_taps.h"
#include "mask_kernels.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace frozenmm {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// One resized mask as 0 / 1; returns its area. Exactly two rows and two columns per cell.
template <typename T>
T mask_cells(const T* logits, int64_t width, const std::vector<TwoTaps>& rows, const std::vector<TwoTaps>& columns,
             T threshold, T* cells) {
  int64_t area = 0;
  for (const TwoTaps& row : rows) {
    const T* top = logits + row.low * width;
    const T* bottom = logits + row.high * width;
    const T top_weight = static_cast<T>(row.low_weight), bottom_weight = static_cast<T>(row.high_weight);
    for (const TwoTaps& column : columns) {
      const T left = static_cast<T>(column.low_weight), right = static_cast<T>(column.high_weight);
      const T value = top_weight * (left * top[column.low] + right * top[column.high]) +
                      bottom_weight * (left * bottom[column.low] + right * bottom[column.high]);
      const bool inside = value > threshold;
      *cells++ = inside ? T(1) : T(0);
      area += inside;
    }
  }
  return static_cast<T>(area);
}

std::vector<TwoTaps> all_taps(int64_t source, int64_t target) {
  std::vector<TwoTaps> taps(target);
  for (int64_t i = 0; i < target; ++i) taps[i] = resize_taps(source, target, i);
  return taps;
}

struct Cells {
  Tensor inside;  // (B, Q, H * W) of 0 / 1
  Tensor areas;   // (B, Q)
};

template <typename T>
Cells all_cells(const Tensor& mask_logits, int64_t height, int64_t width, double threshold) {
  const Tensor logits = torch::stable::contiguous(mask_logits);
  const int64_t images = logits.size(0), queries = logits.size(1), pixels = height * width;
  const int64_t source_width = logits.size(3), source = logits.size(2) * source_width;
  const std::vector<TwoTaps> rows = all_taps(logits.size(2), height), columns = all_taps(source_width, width);
  Cells cells{torch::stable::new_empty(logits, {images, queries, pixels}), torch::stable::new_empty(logits, {images, queries})};
  const T* from = logits.const_data_ptr<T>();
  T* inside = cells.inside.mutable_data_ptr<T>();
  T* areas = cells.areas.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, images * queries, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      areas[i] = mask_cells<T>(from + i * source, source_width, rows, columns, static_cast<T>(threshold),
                               inside + i * pixels);
    }
  });
  return cells;
}

// Divides each row of (rows, channels) by its area + eps, in place.
template <typename T>
void normalise(Tensor& values, const Tensor& areas, double eps) {
  const int64_t rows = areas.numel(), channels = rows ? values.numel() / rows : 0;
  T* value = values.mutable_data_ptr<T>();
  const T* area = areas.const_data_ptr<T>();
  for (int64_t i = 0; i < rows; ++i) {
    const T divisor = area[i] + static_cast<T>(eps);
    for (int64_t c = 0; c < channels; ++c) value[i * channels + c] /= divisor;
  }
}

Tensor pool_double(const Tensor& features, const Tensor& mask_logits, double threshold, double eps) {
  const int64_t images = features.size(0), channels = features.size(1), height = features.size(2),
                width = features.size(3);
  const Cells cells = all_cells<double>(mask_logits, height, width, threshold);
  const Tensor maps = torch::stable::view(torch::stable::contiguous(features), {images, channels, height * width});
  Tensor pooled = torch::stable::matmul(cells.inside, torch::stable::transpose(maps, 1, 2));
  pooled = torch::stable::contiguous(pooled);
  normalise<double>(pooled, cells.areas, eps);
  return pooled;
}

// Taps of an axis as separate arrays of at least `size` entries; those past the axis have weight 0.
template <typename Index>
struct AxisArrays {
  std::vector<Index> low, high;
  std::vector<float> low_weight, high_weight;

  AxisArrays(const std::vector<TwoTaps>& taps, size_t size)
      : low(size), high(size), low_weight(size, 0.0f), high_weight(size, 0.0f) {
    for (size_t i = 0; i < taps.size(); ++i) {
      low[i] = static_cast<Index>(taps[i].low);
      high[i] = static_cast<Index>(taps[i].high);
      low_weight[i] = static_cast<float>(taps[i].low_weight);
      high_weight[i] = static_cast<float>(taps[i].high_weight);
    }
  }
};

Tensor pool_float(const Tensor& features, const Tensor& mask_logits, double threshold, double eps) {
  const Tensor maps = torch::stable::contiguous(features), logits = torch::stable::contiguous(mask_logits);
  const int64_t images = maps.size(0), channels = maps.size(1), height = maps.size(2), width = maps.size(3);
  const int64_t queries = logits.size(1), groups = (height * width + 31) / 32 * 8;
  const MaskKernels& kernels = choose_mask_kernels();
  const AxisArrays<int64_t> rows(all_taps(logits.size(2), height), height);
  const AxisArrays<int32_t> columns(all_taps(logits.size(3), width), (width + kernels.lanes - 1) / kernels.lanes *
                                                                         kernels.lanes);
  std::vector<uint8_t> codes(images * queries * groups);
  std::vector<float> areas(images * queries);
  Tensor means = torch::stable::new_empty(maps, {images, queries, channels});
  int32_t out_of_memory = 0;
  const PoolJob job{maps.const_data_ptr<float>(), logits.const_data_ptr<float>(), images, queries, channels, height,
                    width, logits.size(2), logits.size(3), rows.low.data(), rows.high.data(), rows.low_weight.data(),
                    rows.high_weight.data(), columns.low.data(), columns.high.data(), columns.low_weight.data(),
                    columns.high_weight.data(), static_cast<float>(threshold), static_cast<float>(eps), groups,
                    codes.data(), areas.data(), means.mutable_data_ptr<float>(), &out_of_memory};
  torch::stable::parallel_for(0, images * queries, 1,
                              [&](int64_t first, int64_t end) { kernels.pool_codes(job, first, end); });
  const int64_t block = POOL_VECTORS * kernels.lanes;
  torch::stable::parallel_for(0, images * ((channels + block - 1) / block), 1,
                              [&](int64_t first, int64_t end) { kernels.pool_means(job, first, end); });
  STD_TORCH_CHECK(!out_of_memory, "mask_pool: no memory for the tables");
  return means;
}

template <typename T>
Tensor pool_backward(const Tensor& grad, const Tensor& mask_logits, int64_t height, int64_t width, double threshold,
                     double eps) {
  const Cells cells = all_cells<T>(mask_logits, height, width, threshold);
  Tensor scaled = torch::stable::clone(torch::stable::contiguous(grad));
  normalise<T>(scaled, cells.areas, eps);
  const Tensor gradient = torch::stable::matmul(torch::stable::transpose(scaled, 1, 2), cells.inside);
  return torch::stable::view(torch::stable::contiguous(gradient), {grad.size(0), grad.size(2), height, width});
}

void check(const char* op, const char* name, const Tensor& tensor, int64_t rank, const Tensor& mask_logits) {
  STD_TORCH_CHECK(tensor.is_cpu() && mask_logits.is_cpu(), op, ": ", name, " and mask_logits must be on the CPU");
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " must have ", rank, " axes, got ", tensor.dim());
  STD_TORCH_CHECK(mask_logits.dim() == 4 && mask_logits.size(2) >= 1 && mask_logits.size(3) >= 1, op,
                  ": mask_logits must have axes (B, Q, h, w) with h and w at least 1");
  STD_TORCH_CHECK(tensor.size(0) == mask_logits.size(0), op, ": ", name, " has ", tensor.size(0),
                  " images but mask_logits ", mask_logits.size(0));
  STD_TORCH_CHECK(tensor.scalar_type() == mask_logits.scalar_type() &&
                      (tensor.scalar_type() == ScalarType::Float || tensor.scalar_type() == ScalarType::Double),
                  op, ": ", name, " and mask_logits must both be float32 or both float64");
}

void check_size(const char* op, int64_t height, int64_t width) {
  constexpr int64_t kLimit = int64_t{1} << 30;
  STD_TORCH_CHECK(height >= 1 && height < kLimit && width >= 1 && width < kLimit, op,
                  ": height and width must be at least 1 and below 2^30, got ", height, " and ", width);
}

Tensor mask_pool(Tensor features, Tensor mask_logits, double threshold, double eps) {
  check("mask_pool", "features", features, 4, mask_logits);
  check_size("mask_pool", features.size(2), features.size(3));
  return features.scalar_type() == ScalarType::Float ? pool_float(features, mask_logits, threshold, eps)
                                                     : pool_double(features, mask_logits, threshold, eps);
}

Tensor mask_pool_backward(Tensor grad, Tensor mask_logits, int64_t height, int64_t width, double threshold, double eps) {
  check("mask_pool_backward", "grad", grad, 3, mask_logits);
  STD_TORCH_CHECK(grad.size(1) == mask_logits.size(1), "mask_pool_backward: grad must have axes (B, Q, C) for Q masks");
  check_size("mask_pool_backward", height, width);
  return grad.scalar_type() == ScalarType::Float
             ? pool_backward<float>(grad, mask_logits, height, width, threshold, eps)
             : pool_backward<double>(grad, mask_logits, height, width, threshold, eps);
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) {
  m.impl("mask_pool", TORCH_BOX(&frozenmm::mask_pool));
  m.impl("mask_pool_backward", TORCH_BOX(&frozenmm::mask_pool_backward));
}

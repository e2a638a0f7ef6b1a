// What the CUDA mask kernels share: checks, launches on the current stream, sampling rules on the device.
#pragma once

#include "../mask_taps.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "device.cuh"

namespace frozenmm {
namespace {  // one copy per unit: nothing here is shared between them

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

constexpr float LARGEST_LOGIT = 1e30f;  // infinite logits count as this much

using device::check_launch;
using device::stream_of;

inline void check_float(const char* op, const char* name, const Tensor& tensor, int64_t rank) {
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " must have ", rank, " axes, got ", tensor.dim());
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32");
  STD_TORCH_CHECK(device::holds(tensor), op, ": ", name, " must be on a CUDA device");
  STD_TORCH_CHECK(tensor.numel() > 0, op, ": ", name, " must not be empty");
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor, const Tensor& logits) {
  STD_TORCH_CHECK(device::holds(tensor) && tensor.get_device_index() == logits.get_device_index(), op, ": ", name,
                  " must be on the device of mask_logits");
}

inline void check_sizes(const char* op, const Sizes& padded, const Sizes& image, const Sizes& output) {
  STD_TORCH_CHECK(padded.size() == 2 && image.size() == 2 && output.size() == 2, op,
                  ": padded, image and output must have two entries (height, width) each");
  for (int axis = 0; axis < 2; ++axis) {
    STD_TORCH_CHECK(image[axis] >= 1 && output[axis] >= 1 && image[axis] <= padded[axis], op,
                    ": sizes must be at least 1 and image at most padded, got padded ", padded[axis], ", image ",
                    image[axis], ", output ", output[axis], " along axis ", axis);
    STD_TORCH_CHECK(output[axis] < (int64_t{1} << 30), op, ": output must be below 2^30, got ", output[axis]);
  }
}

// Largest number of taps along an axis without computing them: each true resize doubles them; an enlargement first makes
// neighbours share a cell.
inline int axis_tap_bound(int64_t source, int64_t padded, int64_t image, int64_t output) {
  const int first = source == padded ? 1 : 2, second = image == output ? 1 : 2;
  // the margins keep the rounding of positions from reaching a fourth cell
  return first * second == 4 && source * 101 < padded * 100 && source < 16384 ? 3 : first * second;
}

struct Grid {
  const float* logits;  // [Q][source_height][source_width]
  int queries, source_height, source_width, height, width;
  int row_taps, column_taps;
  const int32_t* row_index;  // [height][row_taps], and so on
  const float* row_weight;
  const int32_t* column_index;
  const float* column_weight;
};

__global__ void fill_taps(int64_t source, int64_t padded, int64_t image, int64_t output, int taps, int32_t* index,
                          float* weight) {
  const int64_t o = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (o >= output) return;
  const Taps row = compose_taps(source, padded, image, output, o);
  for (int t = 0; t < taps; ++t) {
    index[o * taps + t] = row.index[t];
    weight[o * taps + t] = row.weight[t];
  }
}

// A grid with the tensors that it points to.
struct OwnedGrid {
  Grid grid;
  std::vector<Tensor> kept;
};

inline OwnedGrid make_grid(const char* op, const Tensor& logits, const Sizes& padded, const Sizes& image,
                           const Sizes& output, cudaStream_t stream) {
  STD_TORCH_CHECK(logits.size(0) < (int64_t{1} << 31) && logits.size(1) * logits.size(2) < (int64_t{1} << 31), op,
                  ": mask_logits must have fewer than 2^31 queries and cells per mask");
  OwnedGrid owned;
  Grid& grid = owned.grid;
  grid.logits = logits.const_data_ptr<float>();
  grid.queries = static_cast<int>(logits.size(0));
  grid.source_height = static_cast<int>(logits.size(1));
  grid.source_width = static_cast<int>(logits.size(2));
  grid.height = static_cast<int>(output[0]);
  grid.width = static_cast<int>(output[1]);
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t source = logits.size(1 + axis);
    const int taps = axis_tap_bound(source, padded[axis], image[axis], output[axis]);
    const Tensor index = torch::stable::new_empty(logits, {output[axis] * taps}, ScalarType::Int);
    const Tensor weight = torch::stable::new_empty(logits, {output[axis] * taps}, ScalarType::Float);
    device::launch(fill_taps, static_cast<unsigned>((output[axis] + 127) / 128), 128, 0, stream, source, padded[axis],
                   image[axis], output[axis], taps, index.mutable_data_ptr<int32_t>(),
                   weight.mutable_data_ptr<float>());
    check_launch(op);
    (axis ? grid.column_taps : grid.row_taps) = taps;
    (axis ? grid.column_index : grid.row_index) = index.const_data_ptr<int32_t>();
    (axis ? grid.column_weight : grid.row_weight) = weight.const_data_ptr<float>();
    owned.kept.push_back(index);
    owned.kept.push_back(weight);
  }
  return owned;
}

// The sampling rule of one output pixel, in registers. Unused taps have weight 0 and repeat an index.
struct PixelTaps {
  int row[4], column[4];
  float row_weight[4], column_weight[4];
};

__device__ inline PixelTaps pixel_taps(const Grid& grid, int y, int x) {
  PixelTaps taps;
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    const bool row = t < grid.row_taps, column = t < grid.column_taps;
    taps.row[t] = row ? grid.row_index[y * static_cast<int64_t>(grid.row_taps) + t] * grid.source_width : 0;
    taps.row_weight[t] = row ? grid.row_weight[y * static_cast<int64_t>(grid.row_taps) + t] : 0.0f;
    taps.column[t] = column ? grid.column_index[x * static_cast<int64_t>(grid.column_taps) + t] : 0;
    taps.column_weight[t] = column ? grid.column_weight[x * static_cast<int64_t>(grid.column_taps) + t] : 0.0f;
  }
  return taps;
}

__device__ inline float clamp_infinite(float x) {
  return x > LARGEST_LOGIT ? LARGEST_LOGIT : x < -LARGEST_LOGIT ? -LARGEST_LOGIT : x;  // NaN stays
}

// Logit of one query at one output pixel. Rows first, as on the CPU.
__device__ inline float sample(const Grid& grid, const PixelTaps& taps, int query) {
  const float* map = grid.logits + static_cast<int64_t>(query) * grid.source_height * grid.source_width;
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (c >= grid.column_taps) break;
    float column = 0.0f;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if (r >= grid.row_taps) break;
      column = fmaf(clamp_infinite(map[taps.row[r] + taps.column[c]]), taps.row_weight[r], column);
    }
    sum = fmaf(column, taps.column_weight[c], sum);
  }
  return sum;
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

}  // namespace
}  // namespace frozenmm

// Mask ensembling on the CPU: checks, plans, choice of the instruction set, registration.
#include "mask_kernels.h"
#include "mask_axis.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

namespace frozenmm {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

// A grid with the memory that its plans point to.
struct OwnedGrid {
  MaskGrid grid;
  AxisTaps rows, columns;
  std::vector<int32_t> base, index;
  std::vector<float> weight;
};

void check_sizes(const char* op, const Sizes& padded, const Sizes& image, const Sizes& output) {
  STD_TORCH_CHECK(padded.size() == 2 && image.size() == 2 && output.size() == 2, op,
                  ": padded, image and output must have two entries (height, width) each");
  for (int axis = 0; axis < 2; ++axis) {
    STD_TORCH_CHECK(image[axis] >= 1 && output[axis] >= 1 && image[axis] <= padded[axis], op,
                    ": sizes must be at least 1 and image at most padded, got padded ", padded[axis], ", image ",
                    image[axis], ", output ", output[axis], " along axis ", axis);
    STD_TORCH_CHECK(output[axis] < (int64_t{1} << 30), op, ": output must be below 2^30, got ", output[axis]);
  }
}

void check_float(const char* op, const char* name, const Tensor& tensor, int64_t rank) {
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " must have ", rank, " axes, got ", tensor.dim());
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, op, ": ", name, " must be float32");
  STD_TORCH_CHECK(tensor.is_cpu(), op, ": ", name, " must be on the CPU");
  STD_TORCH_CHECK(tensor.numel() > 0, op, ": ", name, " must not be empty");
}

// Groups `lanes` output columns and finds the narrowest way to read the sources of all groups.
void plan_columns(OwnedGrid& owned, int64_t lanes) {
  const AxisTaps& axis = owned.columns;
  const int64_t groups = (axis.outputs + 2 * lanes - 1) / (2 * lanes) * 2, taps = axis.taps;
  owned.base.assign(groups, 0);
  owned.index.assign(groups * taps * lanes, 0);
  owned.weight.assign(groups * taps * lanes, 0.0f);
  int64_t span = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * lanes, end = std::min(axis.outputs, first + lanes);
    if (first >= end) continue;
    const auto from = axis.index.begin() + first * taps, to = axis.index.begin() + end * taps;
    owned.base[g] = *std::min_element(from, to);
    span = std::max<int64_t>(span, *std::max_element(from, to) - owned.base[g] + 1);
    for (int64_t x = first; x < end; ++x) {
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t to_lane = (g * taps + t) * lanes + x - first;
        owned.index[to_lane] = axis.index[x * taps + t] - owned.base[g];
        owned.weight[to_lane] = axis.weight[x * taps + t];
      }
    }
  }
  const int32_t window = span <= lanes ? 1 : span <= 2 * lanes ? 2 : 0;
  owned.grid.columns = {groups, static_cast<int32_t>(taps), window, owned.base.data(), owned.index.data(),
                        owned.weight.data()};
}

OwnedGrid make_grid(const Tensor& logits, const Sizes& padded, const Sizes& image, const Sizes& output, int64_t lanes) {
  OwnedGrid owned;
  const auto sizes = logits.sizes();
  owned.rows = axis_taps(sizes[1], padded[0], image[0], output[0]);
  owned.columns = axis_taps(sizes[2], padded[1], image[1], output[1]);
  MaskGrid& grid = owned.grid;
  grid.logits = logits.const_data_ptr<float>();
  grid.queries = sizes[0];
  grid.source_height = sizes[1];
  grid.source_width = sizes[2];
  grid.used_width = owned.columns.last_index() + 1;
  grid.height = output[0];
  grid.width = output[1];
  grid.rows = {owned.rows.taps, owned.rows.index.data(), owned.rows.weight.data()};
  plan_columns(owned, lanes);
  return owned;
}

Tensor new_like(const Tensor& like, Sizes sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

// Class weights in the orders that the kernels read.
struct PackedWeights {
  int64_t blocks, wide_blocks, block;
  std::vector<float> packed, by_class, largest;
  std::vector<uint16_t> high, low;
};

uint16_t to_bfloat16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  return static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

float from_bfloat16(uint16_t value) {
  const uint32_t word = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &word, 4);
  return result;
}

// Operands of the matrix unit: tiles of 16 classes x 32 queries, padded with zeros to whole pairs of tiles.
void pack_tiles(const float* weights, int64_t queries, int64_t classes, PackedWeights& to) {
  const int64_t steps = (queries + 31) / 32, tiles = (classes + 31) / 32 * 2;
  to.high.assign(tiles * steps * 512, 0);
  to.low.assign(tiles * steps * 512, 0);
  for (int64_t q = 0; q < queries; ++q) {
    for (int64_t k = 0; k < classes; ++k) {
      const int64_t at = ((k / 16 * steps + q / 32) * 16 + k % 16) * 32 + q % 32;
      const float weight = weights[q * classes + k];
      to.high[at] = to_bfloat16(weight);
      to.low[at] = to_bfloat16(weight - from_bfloat16(to.high[at]));
    }
  }
}

PackedWeights pack_weights(const float* weights, int64_t queries, int64_t classes, const MaskKernels& kernels) {
  PackedWeights to;
  to.blocks = (classes + kernels.largest_block - 1) / kernels.largest_block;
  to.block = classes / to.blocks;
  to.wide_blocks = classes % to.blocks;
  to.packed.resize(queries * classes);
  to.by_class.resize(queries * classes);
  to.largest.assign(queries, 0.0f);
  bool screenable = true;
  int64_t first = 0;
  for (int64_t b = 0; b < to.blocks; ++b) {
    const int64_t size = to.block + (b < to.wide_blocks);
    for (int64_t q = 0; q < queries; ++q) {
      for (int64_t c = 0; c < size; ++c) {
        const float weight = weights[q * classes + first + c];
        to.packed[first * queries + q * size + c] = weight;
        to.by_class[(first + c) * queries + q] = weight;
        to.largest[q] = std::max(to.largest[q], weight);
        screenable = screenable && weight >= 0.0f && weight < 1e30f;
      }
    }
    first += size;
  }
  // the bounds hold for weights >= 0; a single class has nothing to decide
  if (!screenable || classes == 1) to.largest.clear();
  if (!to.largest.empty() && kernels.matrix_unit) {
    pack_tiles(weights, queries, classes, to);
  }
  return to;
}

void check_memory(const char* op, int32_t out_of_memory) {
  STD_TORCH_CHECK(!out_of_memory, op, ": no memory for the row buffers");
}

std::tuple<Tensor, Tensor, Tensor> semantic(Tensor probabilities, Tensor mask_logits, Sizes padded, Sizes image,
                                            Sizes output, bool class_scores) {
  const char* op = "mask_ensemble_semantic";
  check_float(op, "probabilities", probabilities, 2);
  check_float(op, "mask_logits", mask_logits, 3);
  STD_TORCH_CHECK(probabilities.size(0) == mask_logits.size(0), op, ": probabilities has ", probabilities.size(0),
                  " queries but mask_logits ", mask_logits.size(0));
  STD_TORCH_CHECK(probabilities.size(1) < (1 << 24), op, ": probabilities must have fewer than 2^24 classes");
  check_sizes(op, padded, image, output);
  const Tensor weights = torch::stable::contiguous(probabilities), logits = torch::stable::contiguous(mask_logits);
  const int64_t queries = weights.size(0), classes = weights.size(1);
  const MaskKernels& kernels = choose_mask_kernels();
  const OwnedGrid owned = make_grid(logits, padded, image, output, kernels.lanes);
  const PackedWeights packed = pack_weights(weights.const_data_ptr<float>(), queries, classes, kernels);
  Tensor labels = new_like(logits, output, ScalarType::Long), scores = new_like(logits, output, ScalarType::Float);
  Tensor maps = new_like(logits, {class_scores ? classes : 0, output[0], output[1]}, ScalarType::Float);
  int32_t out_of_memory = 0;
  const SemanticJob job{owned.grid,
                        classes,
                        packed.blocks,
                        packed.wide_blocks,
                        packed.block,
                        packed.packed.data(),
                        packed.by_class.data(),
                        packed.largest.empty() ? nullptr : packed.largest.data(),
                        packed.high.empty() ? nullptr : packed.high.data(),
                        packed.low.empty() ? nullptr : packed.low.data(),
                        labels.mutable_data_ptr<int64_t>(),
                        scores.mutable_data_ptr<float>(),
                        class_scores ? maps.mutable_data_ptr<float>() : nullptr,
                        &out_of_memory};
  torch::stable::parallel_for(0, output[0], 1, [&](int64_t first, int64_t end) { kernels.semantic(job, first, end); });
  check_memory(op, out_of_memory);
  return {labels, scores, maps};
}

std::tuple<Tensor, Tensor, Tensor> panoptic(Tensor scores, Tensor mask_logits, Sizes padded, Sizes image, Sizes output) {
  const char* op = "mask_ensemble_panoptic";
  check_float(op, "scores", scores, 1);
  check_float(op, "mask_logits", mask_logits, 3);
  STD_TORCH_CHECK(scores.size(0) == mask_logits.size(0), op, ": scores has ", scores.size(0),
                  " queries but mask_logits ", mask_logits.size(0));
  STD_TORCH_CHECK(scores.size(0) < (1 << 24), op, ": scores must have fewer than 2^24 queries");
  check_sizes(op, padded, image, output);
  const Tensor weights = torch::stable::contiguous(scores), logits = torch::stable::contiguous(mask_logits);
  const MaskKernels& kernels = choose_mask_kernels();
  const OwnedGrid owned = make_grid(logits, padded, image, output, kernels.lanes);
  const float* weight = weights.const_data_ptr<float>();
  std::vector<int32_t> taking_part;
  for (int64_t q = 0; q < owned.grid.queries; ++q) {
    if (weight[q] >= 0.0f) taking_part.push_back(static_cast<int32_t>(q));
  }
  Tensor owner = new_like(logits, output, ScalarType::Int), inside = new_like(logits, output, ScalarType::Bool);
  Tensor areas = torch::stable::new_zeros(logits, {owned.grid.queries, 3}, ScalarType::Long);
  int32_t out_of_memory = 0;
  const PanopticJob job{owned.grid,
                        weight,
                        taking_part.data(),
                        static_cast<int64_t>(taking_part.size()),
                        owner.mutable_data_ptr<int32_t>(),
                        static_cast<uint8_t*>(inside.mutable_data_ptr()),
                        areas.mutable_data_ptr<int64_t>(),
                        &out_of_memory};
  torch::stable::parallel_for(0, output[0], 1, [&](int64_t first, int64_t end) { kernels.panoptic(job, first, end); });
  check_memory(op, out_of_memory);
  return {owner, inside, areas};
}

// The smallest box (x0, y0, x1, y1), ends exclusive, around a packed mask; zeros if it is empty.
void find_box(const uint8_t* bits, const int32_t* row_areas, int64_t height, int64_t row_bytes, int64_t* box) {
  std::vector<uint8_t> columns(row_bytes, 0);
  int64_t first = height, end = 0;
  for (int64_t y = 0; y < height; ++y) {
    if (!row_areas[y]) continue;
    first = std::min(first, y);
    end = y + 1;
    for (int64_t i = 0; i < row_bytes; ++i) columns[i] |= bits[y * row_bytes + i];
  }
  int64_t left = 0, right = 0;
  for (int64_t i = 0; i < row_bytes * 8; ++i) {
    if (!(columns[i / 8] >> (i % 8) & 1)) continue;
    if (!right) left = i;
    right = i + 1;
  }
  const int64_t values[4] = {left, end ? first : 0, right, end};
  std::copy(values, values + 4, box);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> instance(Tensor mask_logits, Tensor queries, Sizes padded, Sizes image,
                                                    Sizes output) {
  const char* op = "mask_ensemble_instance";
  check_float(op, "mask_logits", mask_logits, 3);
  STD_TORCH_CHECK(queries.dim() == 1 && queries.scalar_type() == ScalarType::Long && queries.is_cpu(), op,
                  ": queries must be a vector of int64 on the CPU");
  check_sizes(op, padded, image, output);
  const Tensor logits = torch::stable::contiguous(mask_logits), chosen = torch::stable::contiguous(queries);
  const int64_t count = chosen.numel(), height = output[0], row_bytes = (output[1] + 7) / 8;
  const int64_t* query = chosen.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(query[i] >= 0 && query[i] < logits.size(0), op, ": queries must lie in 0..", logits.size(0) - 1,
                    ", got ", query[i]);
  }
  const MaskKernels& kernels = choose_mask_kernels();
  const OwnedGrid owned = make_grid(logits, padded, image, output, kernels.lanes);
  Tensor bits = new_like(logits, {count, height, row_bytes}, ScalarType::Byte);
  Tensor areas = new_like(logits, {count}, ScalarType::Long), sums = new_like(logits, {count}, ScalarType::Float);
  Tensor boxes = new_like(logits, {count, 4}, ScalarType::Long);
  std::vector<int32_t> row_areas(count * height);
  std::vector<float> row_sums(count * height);
  int32_t out_of_memory = 0;
  const InstanceJob job{owned.grid, query,           bits.mutable_data_ptr<uint8_t>(), row_bytes, row_areas.data(),
                        row_sums.data(), &out_of_memory};
  torch::stable::parallel_for(0, count * height, 64,
                              [&](int64_t first, int64_t end) { kernels.instance(job, first, end); });
  check_memory(op, out_of_memory);
  // rows are added in their order, so the sums do not depend on the number of threads
  int64_t* area_out = areas.mutable_data_ptr<int64_t>();
  float* sum_out = sums.mutable_data_ptr<float>();
  int64_t* box_out = boxes.mutable_data_ptr<int64_t>();
  torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      int64_t area = 0;
      double sum = 0.0;
      for (int64_t y = 0; y < height; ++y) {
        area += row_areas[i * height + y];
        sum += row_sums[i * height + y];
      }
      area_out[i] = area;
      sum_out[i] = static_cast<float>(sum);
      find_box(job.bits + i * height * row_bytes, &row_areas[i * height], height, row_bytes, box_out + i * 4);
    }
  });
  return {bits, areas, sums, boxes};
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) {
  m.impl("mask_ensemble_semantic", TORCH_BOX(&frozenmm::semantic));
  m.impl("mask_ensemble_panoptic", TORCH_BOX(&frozenmm::panoptic));
  m.impl("mask_ensemble_instance", TORCH_BOX(&frozenmm::instance));
}

// frozenmm::line_maps and its gradient on CPU: depth maps corrected by lines that are known at the nodes of a coarse grid.
// Lines are interpolated in double along a row and rounded to float for the pixels, as in the definition
// (frozenmm/ops/line_maps.py). Every frame is one piece of work.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "frame_work.h"

namespace frozenmm::lines {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using cpu::each;

// Interpolation along a row: which pixels take part of a node, and how much.
struct Columns {
  std::vector<double> weights;  // [nodes, width]
  std::vector<int64_t> first, end;
};

struct Problem {
  int64_t frames, height, width, row_nodes, column_nodes;
  const float *depth, *scale, *shift;   // [frames, height, width], [frames], [frames]
  const double *intercept, *slope;      // [frames, row_nodes, column_nodes]
  const double* rows;                   // [height, row_nodes]
  Columns columns;
};

Tensor checked(const char* name, const Tensor& tensor, ScalarType type, const std::vector<int64_t>& sizes) {
  return cpu::checked("line_maps", name, tensor, type, sizes);
}

// The inputs, held for as long as the problem points to them.
struct Call {
  Tensor depth, scale, shift, intercept, slope, rows, columns;
  Problem p{};

  Call(const Tensor& depth_, const Tensor& scale_, const Tensor& shift_, const Tensor& intercept_, const Tensor& slope_,
       const Tensor& rows_, const Tensor& columns_)
      : depth(depth_), scale(scale_), shift(shift_), intercept(intercept_), slope(slope_), rows(rows_), columns(columns_) {
    STD_TORCH_CHECK(depth.dim() == 3 && rows.dim() == 2 && columns.dim() == 2,
                    "line_maps: depth must be (F, H, W), rows (H, R) and columns (W, C)");
    p.frames = depth.size(0), p.height = depth.size(1), p.width = depth.size(2);
    p.row_nodes = rows.size(1), p.column_nodes = columns.size(1);
    depth = checked("depth", depth, ScalarType::Float, {p.frames, p.height, p.width});
    scale = checked("scale", scale, ScalarType::Float, {p.frames});
    shift = checked("shift", shift, ScalarType::Float, {p.frames});
    intercept = checked("intercept", intercept, ScalarType::Double, {p.frames, p.row_nodes, p.column_nodes});
    slope = checked("slope", slope, ScalarType::Double, {p.frames, p.row_nodes, p.column_nodes});
    rows = checked("rows", rows, ScalarType::Double, {p.height, p.row_nodes});
    columns = checked("columns", columns, ScalarType::Double, {p.width, p.column_nodes});
    p.depth = depth.const_data_ptr<float>(), p.scale = scale.const_data_ptr<float>();
    p.shift = shift.const_data_ptr<float>(), p.rows = rows.const_data_ptr<double>();
    p.intercept = intercept.const_data_ptr<double>(), p.slope = slope.const_data_ptr<double>();
    read_columns(columns.const_data_ptr<double>());
  }

  void read_columns(const double* from) {
    Columns& c = p.columns;
    c.weights.assign(p.column_nodes * p.width, 0.0);
    c.first.assign(p.column_nodes, p.width);
    c.end.assign(p.column_nodes, 0);
    for (int64_t x = 0; x < p.width; ++x)
      for (int64_t n = 0; n < p.column_nodes; ++n) {
        const double weight = from[x * p.column_nodes + n];
        if (weight == 0) continue;
        c.weights[n * p.width + x] = weight;
        if (x < c.first[n]) c.first[n] = x;
        c.end[n] = x + 1;
      }
  }
};

// Intercept and slope along one row of a frame.
struct Row {
  std::vector<double> intercept, slope;
  explicit Row(int64_t width) : intercept(width), slope(width) {}

  void fill(const Problem& p, int64_t frame, int64_t y) {
    std::fill(intercept.begin(), intercept.end(), 0.0);
    std::fill(slope.begin(), slope.end(), 0.0);
    for (int64_t n = 0; n < p.column_nodes; ++n) {
      double b = 0, a = 0;
      for (int64_t r = 0; r < p.row_nodes; ++r) {
        const double weight = p.rows[y * p.row_nodes + r];
        b += weight * p.intercept[(frame * p.row_nodes + r) * p.column_nodes + n];
        a += weight * p.slope[(frame * p.row_nodes + r) * p.column_nodes + n];
      }
      const double* weights = p.columns.weights.data() + n * p.width;
      for (int64_t x = p.columns.first[n]; x < p.columns.end[n]; ++x) {
        intercept[x] += weights[x] * b;
        slope[x] += weights[x] * a;
      }
    }
  }
};

void fill_frame(const Problem& p, int64_t frame, float* to) {
  Row row(p.width);
  const float scale = p.scale[frame], shift = p.shift[frame];
  for (int64_t y = 0; y < p.height; ++y) {
    row.fill(p, frame, y);
    const float* depth = p.depth + (frame * p.height + y) * p.width;
    float* out = to + (frame * p.height + y) * p.width;
    for (int64_t x = 0; x < p.width; ++x) {
      const float line = scale * depth[x] + shift;
      const float value = static_cast<float>(row.intercept[x]) + static_cast<float>(row.slope[x]) * line;
      out[x] = value < 0 ? 0.0f : value;
    }
  }
}

// Gradients of one frame; `grad` is that of its map.
void differentiate(const Problem& p, int64_t frame, const float* grad, float* by_scale, float* by_shift,
                   double* by_intercept, double* by_slope) {
  Row row(p.width);
  std::vector<double> weighted(p.width), of_line(p.width);
  const float scale = p.scale[frame], shift = p.shift[frame];
  double to_scale = 0, to_shift = 0;
  const int64_t nodes = p.row_nodes * p.column_nodes;
  for (int64_t i = 0; i < nodes; ++i) by_intercept[frame * nodes + i] = by_slope[frame * nodes + i] = 0;
  for (int64_t y = 0; y < p.height; ++y) {
    row.fill(p, frame, y);
    const float* depth = p.depth + (frame * p.height + y) * p.width;
    const float* from = grad + (frame * p.height + y) * p.width;
    for (int64_t x = 0; x < p.width; ++x) {
      const float line = scale * depth[x] + shift, a = static_cast<float>(row.slope[x]);
      const double g = static_cast<float>(row.intercept[x]) + a * line < 0 ? 0.0 : from[x];
      weighted[x] = g;
      of_line[x] = g * line;
      const double through = g * a;
      to_shift += through;
      to_scale += through * depth[x];
    }
    for (int64_t n = 0; n < p.column_nodes; ++n) {
      const double* weights = p.columns.weights.data() + n * p.width;
      double b = 0, a = 0;
      for (int64_t x = p.columns.first[n]; x < p.columns.end[n]; ++x) {
        b += weights[x] * weighted[x];
        a += weights[x] * of_line[x];
      }
      for (int64_t r = 0; r < p.row_nodes; ++r) {
        const double weight = p.rows[y * p.row_nodes + r];
        by_intercept[frame * nodes + r * p.column_nodes + n] += weight * b;
        by_slope[frame * nodes + r * p.column_nodes + n] += weight * a;
      }
    }
  }
  by_scale[frame] = static_cast<float>(to_scale);
  by_shift[frame] = static_cast<float>(to_shift);
}

Tensor line_maps(Tensor depth, Tensor scale, Tensor shift, Tensor intercept, Tensor slope, Tensor rows, Tensor columns) {
  const Call call(depth, scale, shift, intercept, slope, rows, columns);
  Tensor maps = torch::stable::empty_like(call.depth);
  float* to = maps.mutable_data_ptr<float>();
  each(call.p.frames, [&](int64_t frame) { fill_frame(call.p, frame, to); });
  return maps;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> line_maps_backward(Tensor grad, Tensor depth, Tensor scale, Tensor shift,
                                                              Tensor intercept, Tensor slope, Tensor rows,
                                                              Tensor columns) {
  const Call call(depth, scale, shift, intercept, slope, rows, columns);
  const Problem& p = call.p;
  grad = checked("grad", grad, ScalarType::Float, {p.frames, p.height, p.width});
  Tensor by_scale = torch::stable::empty_like(call.scale), by_shift = torch::stable::empty_like(call.shift),
         by_intercept = torch::stable::empty_like(call.intercept), by_slope = torch::stable::empty_like(call.slope);
  const float* from = grad.const_data_ptr<float>();
  float *to_scale = by_scale.mutable_data_ptr<float>(), *to_shift = by_shift.mutable_data_ptr<float>();
  double *to_intercept = by_intercept.mutable_data_ptr<double>(), *to_slope = by_slope.mutable_data_ptr<double>();
  each(p.frames,
       [&](int64_t frame) { differentiate(p, frame, from, to_scale, to_shift, to_intercept, to_slope); });
  return {by_scale, by_shift, by_intercept, by_slope};
}

}  // namespace
}  // namespace frozenmm::lines

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) {
  m.impl("line_maps", TORCH_BOX(&frozenmm::lines::line_maps));
  m.impl("line_maps_backward", TORCH_BOX(&frozenmm::lines::line_maps_backward));
}

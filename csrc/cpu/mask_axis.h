// All sampling rows of one axis, as the CPU kernels read them.
#pragma once

#include "../mask_taps.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace frozenmm {

// Row `o`: source positions index[o * taps + t] with weights weight[o * taps + t].
struct AxisTaps {
  int64_t outputs = 0;
  int64_t taps = 1;
  std::vector<int32_t> index;
  std::vector<float> weight;

  int64_t last_index() const { return *std::max_element(index.begin(), index.end()); }
};

inline AxisTaps axis_taps(int64_t source, int64_t padded, int64_t image, int64_t output) {
  std::vector<Taps> rows(output);
  AxisTaps axis;
  axis.outputs = output;
  for (int64_t o = 0; o < output; ++o) {
    rows[o] = compose_taps(source, padded, image, output, o);
    axis.taps = std::max<int64_t>(axis.taps, rows[o].count);
  }
  axis.index.reserve(output * axis.taps);
  axis.weight.reserve(output * axis.taps);
  for (const Taps& row : rows) {
    axis.index.insert(axis.index.end(), row.index, row.index + axis.taps);
    axis.weight.insert(axis.weight.end(), row.weight, row.weight + axis.taps);
  }
  return axis;
}

}  // namespace frozenmm

// Sampling rule of one axis: bilinear resize to the padded size, cut, bilinear resize to the output, as sparse rows.
// Both steps are linear, so the composition is exact.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace frozenmm {

// Row `o` of an axis: source positions index[o * taps + t] with weights weight[o * taps + t]. Taps that are not in use
// have weight 0 and repeat the row's first index.
struct AxisTaps {
  int64_t outputs = 0;
  int64_t taps = 0;
  std::vector<int32_t> index;
  std::vector<float> weight;

  int64_t last_index() const {
    return *std::max_element(index.begin(), index.end());
  }
};

struct TwoTaps {
  int64_t low, high;
  double low_weight, high_weight;
};

// Source position in float32, as torch's own resize computes it, so that both round to the same cells.
inline TwoTaps resize_taps(int64_t source, int64_t target, int64_t position) {
  if (source == target) return {position, position, 1.0, 0.0};
  const float scale = static_cast<float>(source) / static_cast<float>(target);
  const float product = (static_cast<float>(position) + 0.5f) * scale;
  const float from = std::max(product - 0.5f, 0.0f);
  const int64_t low = std::min(static_cast<int64_t>(from), source - 1);
  const double fraction = std::min(std::max(static_cast<double>(from - static_cast<float>(low)), 0.0), 1.0);
  return {low, std::min(low + 1, source - 1), 1.0 - fraction, fraction};
}

inline AxisTaps axis_taps(int64_t source, int64_t padded, int64_t image, int64_t output) {
  struct Tap {
    int64_t index;
    double weight;
  };
  std::vector<Tap> rows(output * 4);
  std::vector<int> used(output);
  int64_t most = 1;
  for (int64_t o = 0; o < output; ++o) {
    const TwoTaps second = resize_taps(image, output, o);
    const TwoTaps a = resize_taps(source, padded, second.low);
    const TwoTaps b = resize_taps(source, padded, second.high);
    Tap taps[4] = {{a.low, a.low_weight * second.low_weight},
                   {a.high, a.high_weight * second.low_weight},
                   {b.low, b.low_weight * second.high_weight},
                   {b.high, b.high_weight * second.high_weight}};
    std::stable_sort(taps, taps + 4, [](const Tap& l, const Tap& r) { return l.index < r.index; });
    Tap* row = &rows[o * 4];
    int count = 0;
    for (int t = 0; t < 4; ++t) {
      if (taps[t].weight == 0.0) continue;
      if (count > 0 && row[count - 1].index == taps[t].index) {
        row[count - 1].weight += taps[t].weight;
      } else {
        row[count++] = taps[t];
      }
    }
    for (int t = count; t < 4; ++t) row[t] = {row[0].index, 0.0};
    most = std::max<int64_t>(most, count);
  }
  AxisTaps axis;
  axis.outputs = output;
  axis.taps = most;
  axis.index.resize(output * most);
  axis.weight.resize(output * most);
  for (int64_t o = 0; o < output; ++o) {
    for (int64_t t = 0; t < most; ++t) {
      axis.index[o * most + t] = static_cast<int32_t>(rows[o * 4 + t].index);
      axis.weight[o * most + t] = static_cast<float>(rows[o * 4 + t].weight);
    }
  }
  return axis;
}

}  // namespace frozenmm

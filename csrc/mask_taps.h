// Sampling rule of one axis: bilinear resize to the padded size, cut, bilinear resize to the output, as sparse rows.
// Both steps are linear, so the composition is exact. Shared by the CPU and the CUDA kernels.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define FROZENMM_BOTH __host__ __device__
#else
#define FROZENMM_BOTH
#endif

namespace frozenmm {

struct TwoTaps {
  int64_t low, high;
  double low_weight, high_weight;
};

// Source position in float32, as torch's own resize computes it, so that both round to the same cells.
FROZENMM_BOTH inline TwoTaps resize_taps(int64_t source, int64_t target, int64_t position) {
  if (source == target) return {position, position, 1.0, 0.0};
  const float scale = static_cast<float>(source) / static_cast<float>(target);
  const float product = (static_cast<float>(position) + 0.5f) * scale;
  const float from = product > 0.5f ? product - 0.5f : 0.0f;
  const int64_t floor = static_cast<int64_t>(from);
  const int64_t low = floor < source - 1 ? floor : source - 1;
  const double beyond = static_cast<double>(from - static_cast<float>(low));
  const double fraction = beyond < 1.0 ? beyond : 1.0;
  return {low, low + 1 < source ? low + 1 : source - 1, 1.0 - fraction, fraction};
}

// Taps of one output position, ascending and distinct. Those not in use have weight 0 and repeat the first index.
struct Taps {
  int32_t index[4];
  float weight[4];
  int32_t count;
};

FROZENMM_BOTH inline Taps compose_taps(int64_t source, int64_t padded, int64_t image, int64_t output, int64_t position) {
  const TwoTaps second = resize_taps(image, output, position);
  const TwoTaps low = resize_taps(source, padded, second.low), high = resize_taps(source, padded, second.high);
  int64_t index[4] = {low.low, low.high, high.low, high.high};
  double weight[4] = {low.low_weight * second.low_weight, low.high_weight * second.low_weight,
                      high.low_weight * second.high_weight, high.high_weight * second.high_weight};
  for (int t = 1; t < 4; ++t) {  // insertion sort
    for (int s = t; s > 0 && index[s - 1] > index[s]; --s) {
      const int64_t i = index[s];
      const double w = weight[s];
      index[s] = index[s - 1];
      weight[s] = weight[s - 1];
      index[s - 1] = i;
      weight[s - 1] = w;
    }
  }
  int count = 0;
  for (int t = 0; t < 4; ++t) {
    if (weight[t] == 0.0) continue;
    if (count > 0 && index[count - 1] == index[t]) {
      weight[count - 1] += weight[t];
    } else {
      index[count] = index[t];
      weight[count] = weight[t];
      ++count;
    }
  }
  Taps taps;
  taps.count = count;
  for (int t = 0; t < 4; ++t) {
    taps.index[t] = static_cast<int32_t>(index[t < count ? t : 0]);
    taps.weight[t] = t < count ? static_cast<float>(weight[t]) : 0.0f;
  }
  return taps;
}

}  // namespace frozenmm

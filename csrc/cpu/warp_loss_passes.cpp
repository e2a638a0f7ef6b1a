// The passes of frozenmm::warp_loss. Projection in double; colours, sampled depth and shares in float, as in the definition
// (frozenmm/ops/warp_loss.py).
#include "warp_loss.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace frozenmm::warp {
namespace {

constexpr double kBorder = 0.95, kMinDepth = 1e-3;
constexpr int64_t kBlock = 256;

// Four colours at once; the compiler maps it to the vectors of the machine.
typedef float Four __attribute__((vector_size(16)));

Four load(const float* from) {
  Four value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

float sign(float x) { return static_cast<float>((x > 0) - (x < 0)); }

int bin_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<int>(bits >> 20 & (kBins - 1));
}

// Where a block of a pair's pixels lands.
struct Landing {
  double u[kBlock], v[kBlock], z[kBlock], front[kBlock], across[kBlock], along[kBlock];
};

// Sampling positions follow grid_sample: 2 (x + offset) / side - 1 is the normalised coordinate.
struct Axes {
  double side_u, side_v, offset, stretch_u, stretch_v, from;
  explicit Axes(const Problem& p)
      : side_u(static_cast<double>(p.width - p.stretched)), side_v(static_cast<double>(p.height - p.stretched)),
        offset(p.stretched ? 0.0 : 0.5), stretch_u(static_cast<double>(p.width) / side_u),
        stretch_v(static_cast<double>(p.height) / side_v), from(p.stretched ? 0.5 : 0.0) {}
};

void land(const Problem& p, int64_t pair, int64_t first, int64_t size, const Axes& axes, Landing& to) {
  const double* m = p.matrices + 9 * pair;
  const double* t = p.shifts + 3 * pair;
  const double m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3], m4 = m[4], m5 = m[5], m6 = m[6], m7 = m[7], m8 = m[8];
  const double t0 = t[0], t1 = t[1], t2 = t[2];
  const float* depth = p.depth + p.targets[pair] * p.height * p.width;
  double near[kBlock];
  for (int64_t i = 0; i < size; ++i) near[i] = depth[p.pixels[first + i]];
  const double *pu = p.u + first, *pv = p.v + first;
  for (int64_t i = 0; i < size; ++i) {
    const double x = (m0 * pu[i] + m1 * pv[i] + m2) * near[i] + t0;
    const double y = (m3 * pu[i] + m4 * pv[i] + m5) * near[i] + t1;
    const double raw = (m6 * pu[i] + m7 * pv[i] + m8) * near[i] + t2;
    const double z = raw > kMinDepth ? raw : kMinDepth;
    to.u[i] = x / z;
    to.v[i] = y / z;
    to.z[i] = z;
    to.front[i] = raw >= kMinDepth ? 1.0 : 0.0;
    to.across[i] = std::fabs(2 * (to.u[i] + axes.offset) / axes.side_u - 1);
    to.along[i] = std::fabs(2 * (to.v[i] + axes.offset) / axes.side_v - 1);
  }
}

}  // namespace

void look_up(const Problem& p, int64_t pair) {
  const int64_t area = p.height * p.width, reference = p.references[pair] * area, target = p.targets[pair] * area;
  const float* colours = p.colours + 4 * reference;
  const float* depth = p.depth + reference;
  const Axes axes(p);
  const float stretch_u = static_cast<float>(axes.stretch_u), stretch_v = static_cast<float>(axes.stretch_v);
  uint32_t* bins = p.bins + 2 * kBins * pair;
  std::memset(bins, 0, 2 * kBins * sizeof(uint32_t));
  int64_t found = 0;
  Seen* seen = p.seen + pair * p.count;
  float* photometric = p.photometric + pair * p.count;
  double* geometric = p.geometric + pair * p.count;
  const double t2 = p.shifts[3 * pair + 2];
  Landing at;
  for (int64_t first = 0; first < p.count; first += kBlock) {
    const int64_t size = std::min(kBlock, p.count - first);
    land(p, pair, first, size, axes, at);
    for (int64_t i = 0; i < size; ++i) {
      if (!(at.across[i] <= kBorder && at.along[i] <= kBorder) || at.z[i] == t2) continue;
      const int64_t own = target + p.pixels[first + i];
      const double spot_u = at.u[i] * axes.stretch_u - axes.from, spot_v = at.v[i] * axes.stretch_v - axes.from;
      const int64_t left = static_cast<int64_t>(spot_u), top = static_cast<int64_t>(spot_v);  // both are positive here
      const float right = static_cast<float>(spot_u - static_cast<double>(left));
      const float down = static_cast<float>(spot_v - static_cast<double>(top));
      if (p.invalid != nullptr) {
        const int64_t nearest = std::llrint(spot_v) * p.width + std::llrint(spot_u);
        if (p.invalid[own] || p.invalid[reference + nearest]) continue;
      }
      const int64_t corner = top * p.width + left;
      const float* d = depth + corner;
      const float depth_top = d[0] + right * (d[1] - d[0]);
      const float depth_bottom = d[p.width] + right * (d[p.width + 1] - d[p.width]);
      const float m = depth_top + down * (depth_bottom - depth_top);
      const float* c = colours + 4 * corner;
      const Four c00 = load(c), c01 = load(c + 4), c10 = load(c + 4 * p.width), c11 = load(c + 4 * p.width + 4);
      const Four upper = c00 + right * (c01 - c00), lower = c10 + right * (c11 - c10), by_v = lower - upper;
      const Four colour = upper + down * by_v;
      if (m == 0 || colour[0] + colour[1] + colour[2] == 0) continue;
      const Four by_u = (c01 - c00) + down * ((c11 - c10) - (c01 - c00));
      const Four difference = colour - load(p.own_colours + 4 * own);
      float residual = 0, colour_u = 0, colour_v = 0;
      for (int k = 0; k < 3; ++k) {
        const float s = sign(difference[k]) * (1.0f / 3);
        residual += std::fabs(difference[k]);
        colour_u += s * by_u[k];
        colour_v += s * by_v[k];
      }
      residual *= 1.0f / 3;
      const double z = at.z[i], total = m + z, gap = m - z, relative = std::fabs(gap) / total;
      const double slope = static_cast<double>((gap > 0) - (gap < 0)) * 2 / (total * total);
      const float by_seen = static_cast<float>(slope * z), inverse = static_cast<float>(1 / z);
      const float front = static_cast<float>(at.front[i]), scale_u = stretch_u * inverse, scale_v = stretch_v * inverse;
      const float u = static_cast<float>(at.u[i]), v = static_cast<float>(at.v[i]);
      const float depth_u = (d[1] - d[0]) + down * ((d[p.width + 1] - d[p.width]) - (d[1] - d[0]));
      Seen& s = seen[found];
      s.pixel = static_cast<int32_t>(first + i);
      s.corner = static_cast<int32_t>(corner);
      s.right = right;
      s.down = down;
      s.by_seen = by_seen;
      s.by_image_colour[0] = colour_u * scale_u;
      s.by_image_colour[1] = colour_v * scale_v;
      s.by_image_colour[2] = -(s.by_image_colour[0] * u + s.by_image_colour[1] * v) * front;
      s.by_image_depth[0] = by_seen * depth_u * scale_u;
      s.by_image_depth[1] = by_seen * (depth_bottom - depth_top) * scale_v;
      s.by_image_depth[2] =
          (static_cast<float>(-slope * m) - s.by_image_depth[0] * u - s.by_image_depth[1] * v) * front;
      photometric[found] = residual;
      geometric[found] = relative;
      ++bins[bin_of(residual)];
      ++bins[kBins + bin_of(static_cast<float>(relative))];
      ++found;
    }
  }
  p.found[pair] = found;
}

namespace {

template <class T>
double select(const Problem& p, const T* values, const uint32_t* bins, int64_t total, double share) {
  const double place = share * static_cast<double>(total - 1);
  const int64_t low = static_cast<int64_t>(place), high = std::min(low + 1, total - 1);
  int64_t before = 0, here = 0;
  int first = -1, last = -1;  // bins of the values at `low` and `high`
  for (int b = 0; last < 0; ++b) {
    int64_t in_bin = 0;
    for (int64_t pair = 0; pair < p.pairs; ++pair) in_bin += bins[2 * kBins * pair + b];
    here += in_bin;
    if (first < 0 && here > low) {
      first = b;
      before = here - in_bin;
    }
    if (here > high) last = b;
  }
  std::vector<T> candidates;
  candidates.reserve(here - before);
  for (int64_t pair = 0; pair < p.pairs; ++pair)
    for (int64_t i = pair * p.count; i < pair * p.count + p.found[pair]; ++i) {
      const int b = bin_of(static_cast<float>(values[i]));
      if (b >= first && b <= last) candidates.push_back(values[i]);
    }
  const auto at = candidates.begin() + (low - before);
  std::nth_element(candidates.begin(), at, candidates.end());
  const double a = *at, b = high == low ? a : *std::min_element(at + 1, candidates.end());
  return a + (b - a) * (place - static_cast<double>(low));
}

}  // namespace

double quantile(const Problem& p, bool geometric, int64_t total, double share) {
  return geometric ? select(p, p.geometric, p.bins + kBins, total, share)
                   : select(p, p.photometric, p.bins, total, share);
}

Sums sum_below(const Problem& p, int64_t pair, double photometric_limit, double geometric_limit) {
  Sums sums;
  const float* photometric = p.photometric + pair * p.count;
  const double* geometric = p.geometric + pair * p.count;
  for (int64_t i = 0; i < p.found[pair]; ++i) {
    const bool first = photometric[i] < photometric_limit, second = geometric[i] < geometric_limit;
    sums.photometric += first ? photometric[i] : 0.0f;
    sums.geometric += second ? geometric[i] : 0.0;
    sums.photometric_count += first;
    sums.geometric_count += second;
  }
  return sums;
}

void gradients(const Problem& p, int64_t pair, const Factors& f, double* by_matrix, double* by_shift) {
  const double* m = p.matrices + 9 * pair;
  const float* depth = p.depth + p.targets[pair] * p.height * p.width;
  double whole[3] = {}, times_u[3] = {}, times_v[3] = {}, times_z[3] = {};
  for (int64_t i = 0; i < p.found[pair]; ++i) {
    Seen& s = p.seen[pair * p.count + i];
    const double colour = p.photometric[pair * p.count + i] < f.photometric_limit ? f.photometric : 0.0;
    const double near = p.geometric[pair * p.count + i] < f.geometric_limit ? f.geometric : 0.0;
    const double u = p.u[s.pixel], v = p.v[s.pixel], z = depth[p.pixels[s.pixel]];
    double by_target = 0;
    for (int r = 0; r < 3; ++r) {
      const double by_image = colour * s.by_image_colour[r] + near * s.by_image_depth[r];
      whole[r] += by_image;
      times_u[r] += by_image * (z * u);
      times_v[r] += by_image * (z * v);
      times_z[r] += by_image * z;
      by_target += by_image * (m[3 * r] * u + m[3 * r + 1] * v + m[3 * r + 2]);
    }
    s.by_target = static_cast<float>(by_target);
    s.by_seen = static_cast<float>(near * s.by_seen);
  }
  for (int r = 0; r < 3; ++r) {
    by_matrix[3 * r] = times_u[r];
    by_matrix[3 * r + 1] = times_v[r];
    by_matrix[3 * r + 2] = times_z[r];
    by_shift[r] = whole[r];
  }
}

void scatter(const Problem& p, int64_t frame, float* by_depth) {
  std::memset(by_depth, 0, p.height * p.width * sizeof(float));
  for (int64_t pair = 0; pair < p.pairs; ++pair) {
    const Seen *begin = p.seen + pair * p.count, *end = begin + p.found[pair];
    if (p.targets[pair] == frame)
      for (const Seen* s = begin; s < end; ++s) by_depth[p.pixels[s->pixel]] += s->by_target;
    if (p.references[pair] == frame)
      for (const Seen* s = begin; s < end; ++s) {
        float* to = by_depth + s->corner;
        const float lower = s->by_seen * s->down, upper = s->by_seen - lower;
        const float upper_right = upper * s->right, lower_right = lower * s->right;
        to[0] += upper - upper_right;
        to[1] += upper_right;
        to[p.width] += lower - lower_right;
        to[p.width + 1] += lower_right;
      }
  }
}

}  // namespace frozenmm::warp

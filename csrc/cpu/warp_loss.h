// What the entry point of frozenmm::warp_loss hands to its passes. Tensors are contiguous.
#pragma once

#include <cstdint>
#include <vector>

namespace frozenmm::warp {

// One pixel that landed in its reference; the gradients of both residuals by the homogeneous pixel are kept apart, because
// which of them counts is known only after the quantiles.
struct Seen {
  int32_t pixel;             // position in `pixels`
  int32_t corner;            // upper left of the four neighbours, in the reference's map
  float right, down;         // shares of the bilinear sample
  float by_seen;             // of the geometric residual by the sampled depth
  float by_target;           // of the loss by the target's depth; written by `gradients`
  float by_image_colour[3];  // of the photometric residual by the homogeneous pixel
  float by_image_depth[3];   // of the geometric residual
};

constexpr int kBins = 2048;  // sign, exponent and three digits of a float: what the quantiles sort by first

struct Problem {
  int64_t frames, height, width, pairs, count;
  const float* colours;      // [frames, height, width, 4]
  const float* own_colours;  // [frames, height, width, 4]
  const float* depth;        // [frames, height, width]
  const bool* invalid;       // [frames, height, width] or null
  const double* matrices;    // [pairs, 3, 3]
  const double* shifts;      // [pairs, 3]
  const int64_t* targets;    // [pairs]
  const int64_t* references; // [pairs]
  const int64_t* pixels;     // [count]
  bool stretched;            // the official sampling positions
  // Working memory; every pair has room for `count` entries, of which it uses `found[pair]`.
  Seen* seen;
  float* photometric;
  double* geometric;
  int64_t* found;            // [pairs]
  uint32_t* bins;            // [pairs, 2, kBins]
  double *u, *v;             // [count] of the pixels
};

struct Sums {
  double photometric = 0, geometric = 0;
  int64_t photometric_count = 0, geometric_count = 0;
};

// Residuals of one pair below (strictly) a limit each.
Sums sum_below(const Problem& p, int64_t pair, double photometric_limit, double geometric_limit);

// Looks a pair's pixels up; fills its entries and bins.
void look_up(const Problem& p, int64_t pair);

// Linearly interpolated quantile of all pairs' photometric (false) or geometric (true) residuals; `total` is above 0.
double quantile(const Problem& p, bool geometric, int64_t total, double share);

// What a residual below its limit adds to the loss.
struct Factors {
  double photometric_limit, geometric_limit, photometric, geometric;
};

// Gradients of one pair by its matrix (3, 3) and shift (3, ); leaves `by_target` and `by_seen` of every entry final.
void gradients(const Problem& p, int64_t pair, const Factors& factors, double* by_matrix, double* by_shift);

// Gradient of one frame's depth, from all pairs that it is part of, in their order.
void scatter(const Problem& p, int64_t frame, float* by_depth);

}  // namespace frozenmm::warp

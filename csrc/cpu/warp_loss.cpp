// Entry point of frozenmm::warp_loss on CPU: checks, working memory, division of the work. Pairs and frames are worked on
// side by side, and every sum runs in a fixed order, so the number of threads does not change the result.
#include "warp_loss.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "frame_work.h"
#include "workspace.h"

namespace frozenmm::warp {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using cpu::each;

constexpr int64_t kSmallestSide = 24;  // below it a valid pixel could need a neighbour outside the map

Tensor checked(const char* name, const Tensor& tensor, ScalarType type, const std::vector<int64_t>& sizes) {
  return cpu::checked("warp_loss", name, tensor, type, sizes);
}

void check_range(const char* name, const int64_t* values, int64_t count, int64_t limit) {
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(values[i] >= 0 && values[i] < limit, "warp_loss: ", name, " must be in 0..", limit - 1, ", got ",
                    values[i]);
}

// Cuts one piece of memory into arrays; from address 0 it only adds up their sizes.
struct Cutter {
  uintptr_t memory;
  int64_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* found = reinterpret_cast<T*>(memory + static_cast<uintptr_t>(used));
    used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return found;
  }
};

int64_t cut(Problem& p, uintptr_t memory) {
  Cutter cutter{memory};
  p.seen = cutter.take<Seen>(p.pairs * p.count);
  p.photometric = cutter.take<float>(p.pairs * p.count);
  p.geometric = cutter.take<double>(p.pairs * p.count);
  p.found = cutter.take<int64_t>(p.pairs);
  p.bins = cutter.take<uint32_t>(p.pairs * 2 * kBins);
  p.u = cutter.take<double>(p.count);
  p.v = cutter.take<double>(p.count);
  return cutter.used;
}

Sums sum_all(const Problem& p, double photometric_limit, double geometric_limit) {
  std::vector<Sums> parts(p.pairs);
  each(p.pairs, [&](int64_t pair) { parts[pair] = sum_below(p, pair, photometric_limit, geometric_limit); });
  Sums sums;
  for (const Sums& part : parts) {
    sums.photometric += part.photometric;
    sums.geometric += part.geometric;
    sums.photometric_count += part.photometric_count;
    sums.geometric_count += part.geometric_count;
  }
  return sums;
}

// Limits below which residuals count, and their sums; where a limit leaves none, all count.
Sums trim(const Problem& p, std::optional<double> share, Factors& factors) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double limits[2] = {kNone, kNone};
  int64_t total = 0;
  for (int64_t pair = 0; pair < p.pairs; ++pair) total += p.found[pair];
  if (share && total > 0) each(2, [&](int64_t i) { limits[i] = quantile(p, i == 1, total, *share); });
  Sums sums = sum_all(p, limits[0], limits[1]);
  if (sums.photometric_count == 0 || sums.geometric_count == 0) {
    if (sums.photometric_count == 0) limits[0] = kNone;
    if (sums.geometric_count == 0) limits[1] = kNone;
    sums = sum_all(p, limits[0], limits[1]);
  }
  factors.photometric_limit = limits[0];
  factors.geometric_limit = limits[1];
  return sums;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> warp_loss(Tensor colours, Tensor own_colours, Tensor depth,
                                                     std::optional<Tensor> invalid, Tensor matrices, Tensor shifts,
                                                     Tensor targets, Tensor references, Tensor pixels,
                                                     double photometric, double geometric, std::optional<double> share,
                                                     bool stretched) {
  STD_TORCH_CHECK(depth.dim() == 3 && targets.dim() == 1 && pixels.dim() == 1,
                  "warp_loss: depth must be (F, H, W), targets (P, ) and pixels (N, )");
  Problem p{};
  p.frames = depth.size(0), p.height = depth.size(1), p.width = depth.size(2);
  p.pairs = targets.size(0), p.count = pixels.size(0), p.stretched = stretched;
  STD_TORCH_CHECK(p.height >= kSmallestSide && p.width >= kSmallestSide, "warp_loss: maps must have at least ",
                  kSmallestSide, " pixels a side, got ", p.height, " x ", p.width);
  STD_TORCH_CHECK(p.height * p.width < (int64_t{1} << 31), "warp_loss: maps must have fewer than 2^31 pixels");
  STD_TORCH_CHECK(!share || (*share > 0 && *share <= 1), "warp_loss: trim must be above 0 and at most 1");
  const std::vector<int64_t> maps{p.frames, p.height, p.width}, coloured{p.frames, p.height, p.width, 4};
  colours = checked("colours", colours, ScalarType::Float, coloured);
  own_colours = checked("own_colours", own_colours, ScalarType::Float, coloured);
  depth = checked("depth", depth, ScalarType::Float, maps);
  matrices = checked("matrices", matrices, ScalarType::Double, {p.pairs, 3, 3});
  shifts = checked("shifts", shifts, ScalarType::Double, {p.pairs, 3});
  targets = checked("targets", targets, ScalarType::Long, {p.pairs});
  references = checked("references", references, ScalarType::Long, {p.pairs});
  pixels = checked("pixels", pixels, ScalarType::Long, {p.count});
  if (invalid) invalid = checked("invalid", *invalid, ScalarType::Bool, maps);
  p.colours = colours.const_data_ptr<float>(), p.own_colours = own_colours.const_data_ptr<float>();
  p.depth = depth.const_data_ptr<float>(), p.invalid = invalid ? invalid->const_data_ptr<bool>() : nullptr;
  p.matrices = matrices.const_data_ptr<double>(), p.shifts = shifts.const_data_ptr<double>();
  p.targets = targets.const_data_ptr<int64_t>(), p.references = references.const_data_ptr<int64_t>();
  p.pixels = pixels.const_data_ptr<int64_t>();
  check_range("targets", p.targets, p.pairs, p.frames);
  check_range("references", p.references, p.pairs, p.frames);
  check_range("pixels", p.pixels, p.count, p.height * p.width);
  void* memory = cpu::workspace(cut(p, 0));
  STD_TORCH_CHECK(memory != nullptr, "warp_loss: out of memory for ", p.pairs, " pairs of ", p.count, " pixels");
  cut(p, reinterpret_cast<uintptr_t>(memory));
  for (int64_t i = 0; i < p.count; ++i) {
    p.u[i] = static_cast<double>(p.pixels[i] % p.width);
    p.v[i] = static_cast<double>(p.pixels[i] / p.width);
  }
  each(p.pairs, [&](int64_t pair) { look_up(p, pair); });
  Factors factors{};
  const Sums sums = trim(p, share, factors);
  const double counts[2] = {static_cast<double>(std::max<int64_t>(sums.photometric_count, 1)),
                            static_cast<double>(std::max<int64_t>(sums.geometric_count, 1))};
  factors.photometric = photometric / counts[0];
  factors.geometric = geometric / counts[1];
  Tensor means = torch::stable::new_empty(matrices, {2}), by_depth = torch::stable::empty_like(depth),
         by_matrix = torch::stable::empty_like(matrices), by_shift = torch::stable::empty_like(shifts);
  means.mutable_data_ptr<double>()[0] = sums.photometric / counts[0];
  means.mutable_data_ptr<double>()[1] = sums.geometric / counts[1];
  double *to_matrix = by_matrix.mutable_data_ptr<double>(), *to_shift = by_shift.mutable_data_ptr<double>();
  each(p.pairs, [&](int64_t pair) { gradients(p, pair, factors, to_matrix + 9 * pair, to_shift + 3 * pair); });
  float* to_depth = by_depth.mutable_data_ptr<float>();
  each(p.frames, [&](int64_t frame) { scatter(p, frame, to_depth + frame * p.height * p.width); });
  return {means, by_depth, by_matrix, by_shift};
}

}  // namespace
}  // namespace frozenmm::warp

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) { m.impl("warp_loss", TORCH_BOX(&frozenmm::warp::warp_loss)); }

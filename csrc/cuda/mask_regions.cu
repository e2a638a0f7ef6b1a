// Owners of pixels (panoptic) and binary masks (instance) on CUDA. Nothing is read back to the host.
#include "mask_common.cuh"

#include <algorithm>
#include <tuple>

namespace frozenmm {
namespace {

constexpr int THREADS = 256;
constexpr unsigned WHOLE_WARP = 0xffffffffu;

// ---------------------------------------------------------------------------------------------------- panoptic

struct PanopticJob {
  Grid grid;
  const float* scores;  // [Q], negative or NaN: takes no part
  int32_t* owner;
  bool* inside;
  unsigned long long* areas;  // [Q][3], zeroed
};

// Blocks walk over strips of THREADS pixels and count in shared memory, so that few global additions remain.
__global__ void __launch_bounds__(THREADS) panoptic_kernel(const PanopticJob job, int64_t tiles, int strips) {
  unsigned* const counts = device::dynamic_shared<unsigned>();  // [Q][3]
  const int queries = job.grid.queries, lane = threadIdx.x % 32;
  for (int i = threadIdx.x; i < queries * 3; i += THREADS) counts[i] = 0;
  __syncthreads();
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int y = static_cast<int>(tile / strips);
    const int64_t wide_x = tile % strips * THREADS + threadIdx.x;
    const bool exists = wide_x < job.grid.width;
    const int x = exists ? static_cast<int>(wide_x) : job.grid.width - 1;
    const PixelTaps taps = pixel_taps(job.grid, y, x);
    float best = -1.0f;
    int owner = -1;
    bool owner_inside = false;
    for (int q = 0; q < queries; ++q) {
      const float score = job.scores[q];  // the same for all threads, and so is the branch
      if (!(score >= 0.0f)) continue;
      const float logit = sample(job.grid, taps, q);
      const bool inside = logit >= 0.0f;
      const unsigned votes = __ballot_sync(WHOLE_WARP, inside && exists);
      if (lane == 0 && votes) atomicAdd(&counts[q * 3 + 1], __popc(votes));
      // exp(-x) >= 1 - x, so below zero sigmoid(x) <= 1 / (2 - x): nothing to win where score < best * (2 - x)
      if (logit < 0.0f && score < best * (2.0f - logit) * 0.9999f) continue;
      const float product = score * sigmoid(logit);
      if (product > best) {
        best = product;
        owner = q;
        owner_inside = inside;
      }
    }
    if (exists) {
      const int64_t pixel = static_cast<int64_t>(y) * job.grid.width + x;
      job.owner[pixel] = owner;
      job.inside[pixel] = owner_inside;
      if (owner >= 0) {
        atomicAdd(&counts[owner * 3], 1u);
        if (owner_inside) atomicAdd(&counts[owner * 3 + 2], 1u);
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < queries * 3; i += THREADS) {
    if (counts[i]) atomicAdd(job.areas + i, static_cast<unsigned long long>(counts[i]));
  }
}

std::tuple<Tensor, Tensor, Tensor> panoptic(Tensor scores, Tensor mask_logits, Sizes padded, Sizes image, Sizes output) {
  const char* op = "mask_ensemble_panoptic";
  check_float(op, "scores", scores, 1);
  check_float(op, "mask_logits", mask_logits, 3);
  check_same_device(op, "scores", scores, mask_logits);
  STD_TORCH_CHECK(scores.size(0) == mask_logits.size(0), op, ": scores has ", scores.size(0),
                  " queries but mask_logits ", mask_logits.size(0));
  STD_TORCH_CHECK(scores.size(0) * 12 <= 48 * 1024, op, ": at most 4096 queries, got ", scores.size(0));
  check_sizes(op, padded, image, output);
  const device::Guard guard(mask_logits.get_device_index());
  const cudaStream_t stream = stream_of(mask_logits);
  const Tensor weights = torch::stable::contiguous(scores), logits = torch::stable::contiguous(mask_logits);
  const OwnedGrid owned = make_grid(op, logits, padded, image, output, stream);
  const int64_t queries = owned.grid.queries;
  Tensor owner = torch::stable::new_empty(logits, output, ScalarType::Int);
  Tensor inside = torch::stable::new_empty(logits, output, ScalarType::Bool);
  Tensor areas = torch::stable::new_zeros(logits, {queries, 3}, ScalarType::Long);
  const PanopticJob job{owned.grid, weights.const_data_ptr<float>(), owner.mutable_data_ptr<int32_t>(),
                        static_cast<bool*>(inside.mutable_data_ptr()),
                        reinterpret_cast<unsigned long long*>(areas.mutable_data_ptr<int64_t>())};
  const int64_t strips = (output[1] + THREADS - 1) / THREADS, tiles = strips * output[0];
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(tiles, 2048));
  device::launch(panoptic_kernel, blocks, THREADS, queries * 12, stream, job, tiles, static_cast<int>(strips));
  check_launch(op);
  return {owner, inside, areas};
}

// ---------------------------------------------------------------------------------------------------- instance

struct InstanceJob {
  Grid grid;
  const int64_t* queries;  // [N]
  uint8_t* bits;           // [N][height][row_bytes]
  int row_bytes;
  int32_t* row_areas;  // [N][height]
  float* row_sums;     // [N][height]
};

// One block per row of one mask. A query that does not exist gives an empty mask with a NaN sum.
__global__ void __launch_bounds__(THREADS) instance_kernel(const InstanceJob job) {
  const int64_t row = blockIdx.x;
  const int y = static_cast<int>(row % job.grid.height);
  const int64_t query = job.queries[row / job.grid.height];
  const bool known = query >= 0 && query < job.grid.queries;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int area = 0;
  float sum = known ? 0.0f : NAN;
  for (int64_t start = 0; start < job.grid.width; start += THREADS) {  // the same for all threads
    const int64_t wide_x = start + threadIdx.x;
    const bool exists = wide_x < job.grid.width;
    const int x = exists ? static_cast<int>(wide_x) : job.grid.width - 1;
    const float logit = known ? sample(job.grid, pixel_taps(job.grid, y, x), static_cast<int>(query)) : -1.0f;
    const bool inside = exists && logit > 0.0f;
    const unsigned votes = __ballot_sync(WHOLE_WARP, inside);
    if (inside) sum += sigmoid(logit);
    if (lane == 0) area += __popc(votes);
    const int64_t byte = (start + warp * 32) / 8 + lane;
    if (lane < 4 && byte < job.row_bytes) {
      job.bits[row * job.row_bytes + byte] = static_cast<uint8_t>(votes >> (8 * lane));
    }
  }
  __shared__ float sums[THREADS / 32];
  __shared__ int areas[THREADS / 32];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(WHOLE_WARP, sum, step);
  if (lane == 0) {
    sums[warp] = sum;
    areas[warp] = area;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < THREADS / 32; ++w) {  // in a fixed order
      sum += sums[w];
      area += areas[w];
    }
    job.row_sums[row] = sum;
    job.row_areas[row] = area;
  }
}

// One block per mask: totals of its rows in a fixed order, and its box.
__global__ void __launch_bounds__(THREADS) instance_totals(const InstanceJob job, int64_t* areas, float* sums,
                                                           int64_t* boxes) {
  const int64_t n = blockIdx.x;
  const int height = job.grid.height;
  double sum = 0.0;
  long long area = 0;
  int top = height, bottom = 0, left = job.grid.width, right = 0;
  for (int y = threadIdx.x; y < height; y += THREADS) {
    const int row_area = job.row_areas[n * height + y];
    sum += job.row_sums[n * height + y];
    area += row_area;
    if (row_area) {
      top = min(top, y);
      bottom = y + 1;
    }
  }
  for (int i = threadIdx.x; i < job.row_bytes; i += THREADS) {
    unsigned any = 0;
    for (int y = 0; y < height; ++y) any |= job.bits[(n * height + y) * job.row_bytes + i];
    if (any) {
      left = min(left, i * 8 + __ffs(any) - 1);
      right = i * 8 + 32 - __clz(any);
    }
  }
  __shared__ double all_sums[THREADS];
  __shared__ long long all_areas[THREADS];
  __shared__ int box[4];  // left, top, right, bottom
  all_sums[threadIdx.x] = sum;
  all_areas[threadIdx.x] = area;
  if (threadIdx.x == 0) {
    box[0] = job.grid.width;
    box[1] = height;
    box[2] = box[3] = 0;
  }
  __syncthreads();
  atomicMin(&box[0], left);
  atomicMin(&box[1], top);
  atomicMax(&box[2], right);
  atomicMax(&box[3], bottom);
  for (int step = THREADS / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) {
      all_sums[threadIdx.x] += all_sums[threadIdx.x + step];
      all_areas[threadIdx.x] += all_areas[threadIdx.x + step];
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    areas[n] = all_areas[0];
    sums[n] = static_cast<float>(all_sums[0]);
  }
  if (threadIdx.x < 4) boxes[n * 4 + threadIdx.x] = box[3] ? box[threadIdx.x] : 0;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> instance(Tensor mask_logits, Tensor queries, Sizes padded, Sizes image,
                                                    Sizes output) {
  const char* op = "mask_ensemble_instance";
  check_float(op, "mask_logits", mask_logits, 3);
  check_same_device(op, "queries", queries, mask_logits);
  STD_TORCH_CHECK(queries.dim() == 1 && queries.scalar_type() == ScalarType::Long, op,
                  ": queries must be a vector of int64");
  check_sizes(op, padded, image, output);
  const device::Guard guard(mask_logits.get_device_index());
  const cudaStream_t stream = stream_of(mask_logits);
  const Tensor logits = torch::stable::contiguous(mask_logits), chosen = torch::stable::contiguous(queries);
  const int64_t count = chosen.numel(), row_bytes = (output[1] + 7) / 8;
  Tensor bits = torch::stable::new_empty(logits, {count, output[0], row_bytes}, ScalarType::Byte);
  Tensor areas = torch::stable::new_empty(logits, {count}, ScalarType::Long);
  Tensor sums = torch::stable::new_empty(logits, {count}, ScalarType::Float);
  Tensor boxes = torch::stable::new_empty(logits, {count, 4}, ScalarType::Long);
  if (count == 0) return {bits, areas, sums, boxes};
  STD_TORCH_CHECK(count * output[0] < (int64_t{1} << 31), op, ": too many masks for this output height");
  const OwnedGrid owned = make_grid(op, logits, padded, image, output, stream);
  const Tensor row_areas = torch::stable::new_empty(logits, {count, output[0]}, ScalarType::Int);
  const Tensor row_sums = torch::stable::new_empty(logits, {count, output[0]}, ScalarType::Float);
  const InstanceJob job{owned.grid,
                        chosen.const_data_ptr<int64_t>(),
                        bits.mutable_data_ptr<uint8_t>(),
                        static_cast<int>(row_bytes),
                        row_areas.mutable_data_ptr<int32_t>(),
                        row_sums.mutable_data_ptr<float>()};
  device::launch(instance_kernel, static_cast<unsigned>(count * output[0]), THREADS, 0, stream, job);
  check_launch(op);
  device::launch(instance_totals, static_cast<unsigned>(count), THREADS, 0, stream, job,
                 areas.mutable_data_ptr<int64_t>(), sums.mutable_data_ptr<float>(), boxes.mutable_data_ptr<int64_t>());
  check_launch(op);
  return {bits, areas, sums, boxes};
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, FROZENMM_DISPATCH_KEY, m) {
  m.impl("mask_ensemble_panoptic", TORCH_BOX(&frozenmm::panoptic));
  m.impl("mask_ensemble_instance", TORCH_BOX(&frozenmm::instance));
}

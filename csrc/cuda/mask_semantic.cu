// Semantic label maps on CUDA. A block owns a strip of one output row: it fills shared memory with the sigmoids of all
// queries, then multiplies them with the class weights in register tiles, and keeps the best class as it goes. Neither the
// masks nor, unless asked for, the class scores ever reach global memory.
#include "mask_common.cuh"

#include <algorithm>
#include <tuple>

namespace frozenmm {
namespace {

constexpr int THREADS = 256;
constexpr int CLASS_GROUPS = 16;  // groups of threads, each with its own classes
constexpr int STEP = 16;          // queries whose weights are in shared memory at a time

struct SemanticJob {
  Grid grid;
  int classes;
  const float* weights;  // [Q][K]
  int64_t* labels;
  float* scores;
  float* class_scores;  // [K][height][width] or null
};

// PIXELS: pixels per thread (of 16 groups), CLASSES: classes per thread and pass.
template <int PIXELS, int CLASSES>
__global__ void __launch_bounds__(THREADS) semantic_kernel(const SemanticJob job) {
  constexpr int STRIP = 16 * PIXELS, PASS = CLASS_GROUPS * CLASSES;
  float* const shared = device::dynamic_shared<float>();
  float* sigmoids = shared;                                      // [Q][STRIP]
  float* weights = shared + job.grid.queries * STRIP;            // [STEP][PASS]
  __shared__ float best_score[CLASS_GROUPS][STRIP];
  __shared__ int best_label[CLASS_GROUPS][STRIP];
  const int strips = (job.grid.width + STRIP - 1) / STRIP;
  const int y = blockIdx.x / strips, first_x = blockIdx.x % strips * STRIP;
  const int thread = threadIdx.x, queries = job.grid.queries;

  // each thread samples one column for every (THREADS / STRIP)-th query; columns past the row repeat its last pixel
  const int column = thread % STRIP;
  const PixelTaps taps = pixel_taps(job.grid, y, min(first_x + column, job.grid.width - 1));
  for (int q = thread / STRIP; q < queries; q += THREADS / STRIP) {
    sigmoids[q * STRIP + column] = sigmoid(sample(job.grid, taps, q));
  }

  const int pixel_group = thread % 16, class_group = thread / 16;
  float best[PIXELS];
  int label[PIXELS];
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) {
    best[p] = -INFINITY;
    label[p] = INT32_MAX;
  }
  for (int first = 0; first < job.classes; first += PASS) {
    float sums[CLASSES][PIXELS] = {};
    for (int start = 0; start < queries; start += STEP) {
      __syncthreads();  // the weights of the step before are no longer read; the first time: the sigmoids are complete
      for (int i = thread; i < STEP * PASS; i += THREADS) {
        const int q = start + i / PASS, k = first + i % PASS;
        weights[i] = q < queries && k < job.classes ? job.weights[static_cast<int64_t>(q) * job.classes + k] : 0.0f;
      }
      __syncthreads();
      const int steps = min(STEP, queries - start);
      for (int s = 0; s < steps; ++s) {
        float value[PIXELS], weight[CLASSES];
#pragma unroll
        for (int p = 0; p < PIXELS; ++p) value[p] = sigmoids[(start + s) * STRIP + pixel_group * PIXELS + p];
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) weight[c] = weights[s * PASS + class_group * CLASSES + c];
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) {
#pragma unroll
          for (int p = 0; p < PIXELS; ++p) sums[c][p] = fmaf(weight[c], value[p], sums[c][p]);
        }
      }
    }
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
      const int k = first + class_group * CLASSES + c;
      if (k >= job.classes) break;
#pragma unroll
      for (int p = 0; p < PIXELS; ++p) {
        // class 0 is taken whatever it is: a NaN stays, as nothing exceeds it
        if (k == 0 || sums[c][p] > best[p]) {
          best[p] = sums[c][p];
          label[p] = k;
        }
        const int x = first_x + pixel_group * PIXELS + p;
        if (job.class_scores && x < job.grid.width) {
          job.class_scores[(static_cast<int64_t>(k) * job.grid.height + y) * job.grid.width + x] = sums[c][p];
        }
      }
    }
  }
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) {
    best_score[class_group][pixel_group * PIXELS + p] = best[p];
    best_label[class_group][pixel_group * PIXELS + p] = label[p];
  }
  __syncthreads();
  const int x = first_x + thread;
  if (thread >= STRIP || x >= job.grid.width) return;
  // group 0 holds class 0; of equal scores the lowest class wins
  float top = best_score[0][thread];
  int winner = best_label[0][thread];
  for (int g = 1; g < CLASS_GROUPS; ++g) {
    const float score = best_score[g][thread];
    if (score > top || (score == top && best_label[g][thread] < winner)) {
      top = score;
      winner = best_label[g][thread];
    }
  }
  const int64_t pixel = static_cast<int64_t>(y) * job.grid.width + x;
  job.labels[pixel] = winner;
  job.scores[pixel] = top;
}

template <int PIXELS, int CLASSES>
int64_t shared_bytes(int64_t queries) {
  return (queries * 16 * PIXELS + STEP * CLASS_GROUPS * CLASSES) * 4;
}

template <int PIXELS, int CLASSES>
void launch(const char* op, const SemanticJob& job, cudaStream_t stream) {
  const int64_t bytes = shared_bytes<PIXELS, CLASSES>(job.grid.queries);
  const cudaError_t error = cudaFuncSetAttribute(semantic_kernel<PIXELS, CLASSES>,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  STD_TORCH_CHECK(error == cudaSuccess, op, ": no shared memory for the queries: ", cudaGetErrorString(error));
  const int64_t strips = (job.grid.width + 16 * PIXELS - 1) / (16 * PIXELS), blocks = strips * job.grid.height;
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), op, ": output is too large");
  device::launch(semantic_kernel<PIXELS, CLASSES>, static_cast<unsigned>(blocks), THREADS, bytes, stream, job);
  check_launch(op);
}

// The number of classes per thread that wastes least in the last pass.
template <int PIXELS>
void launch_by_classes(const char* op, const SemanticJob& job, cudaStream_t stream) {
  const int passes = (job.classes + 127) / 128;
  const int needed = (job.classes + passes * CLASS_GROUPS - 1) / (passes * CLASS_GROUPS);
  switch (needed) {
    case 1: launch<PIXELS, 1>(op, job, stream); break;
    case 2: launch<PIXELS, 2>(op, job, stream); break;
    case 3: launch<PIXELS, 3>(op, job, stream); break;
    case 4: launch<PIXELS, 4>(op, job, stream); break;
    case 5: launch<PIXELS, 5>(op, job, stream); break;
    case 6: launch<PIXELS, 6>(op, job, stream); break;
    case 7: launch<PIXELS, 7>(op, job, stream); break;
    default: launch<PIXELS, 8>(op, job, stream); break;
  }
}

std::tuple<Tensor, Tensor, Tensor> semantic(Tensor probabilities, Tensor mask_logits, Sizes padded, Sizes image,
                                            Sizes output, bool class_scores) {
  const char* op = "mask_ensemble_semantic";
  check_float(op, "probabilities", probabilities, 2);
  check_float(op, "mask_logits", mask_logits, 3);
  check_same_device(op, "probabilities", probabilities, mask_logits);
  STD_TORCH_CHECK(probabilities.size(0) == mask_logits.size(0), op, ": probabilities has ", probabilities.size(0),
                  " queries but mask_logits ", mask_logits.size(0));
  STD_TORCH_CHECK(probabilities.size(1) < (1 << 24), op, ": probabilities must have fewer than 2^24 classes");
  check_sizes(op, padded, image, output);
  const device::Guard guard(mask_logits.get_device_index());
  const cudaStream_t stream = stream_of(mask_logits);
  const Tensor weights = torch::stable::contiguous(probabilities), logits = torch::stable::contiguous(mask_logits);
  const int64_t classes = weights.size(1);
  const OwnedGrid owned = make_grid(op, logits, padded, image, output, stream);
  Tensor labels = torch::stable::new_empty(logits, output, ScalarType::Long);
  Tensor scores = torch::stable::new_empty(logits, output, ScalarType::Float);
  Tensor maps = torch::stable::new_empty(logits, {class_scores ? classes : 0, output[0], output[1]}, ScalarType::Float);
  const SemanticJob job{owned.grid,
                        static_cast<int>(classes),
                        weights.const_data_ptr<float>(),
                        labels.mutable_data_ptr<int64_t>(),
                        scores.mutable_data_ptr<float>(),
                        class_scores ? maps.mutable_data_ptr<float>() : nullptr};
  int device = 0, available = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&available, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  available -= CLASS_GROUPS * 64 * 8 + 1024;  // the static part, and what the system keeps
  if (shared_bytes<4, 8>(job.grid.queries) <= available) {
    launch_by_classes<4>(op, job, stream);
  } else if (shared_bytes<2, 8>(job.grid.queries) <= available) {
    launch_by_classes<2>(op, job, stream);
  } else {
    STD_TORCH_CHECK((shared_bytes<1, 8>(job.grid.queries)) <= available, op, ": ", job.grid.queries,
                    " queries do not fit into shared memory; at most ", (available - shared_bytes<1, 8>(0)) / 64,
                    " do on this device. Take fewer queries, or FROZENMM_OPS=torch");
    launch_by_classes<1>(op, job, stream);
  }
  return {labels, scores, maps};
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, FROZENMM_DISPATCH_KEY, m) {
  m.impl("mask_ensemble_semantic", TORCH_BOX(&frozenmm::semantic));
}

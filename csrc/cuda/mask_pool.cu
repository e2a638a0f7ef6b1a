// Mask pooling on CUDA: logits are resized only at the cells that the features have, then one matrix product.
#include "mask_common.cuh"

namespace frozenmm {
namespace {

constexpr int THREADS = 256;

// One block per mask: its cells as 0 / 1 at the features' size, and its area.
template <typename T>
__global__ void __launch_bounds__(THREADS) cells_kernel(const T* logits, int source_height, int source_width, int height,
                                                        int width, T threshold, T* cells, T* areas) {
  const T* map = logits + blockIdx.x * static_cast<int64_t>(source_height) * source_width;
  T* out = cells + blockIdx.x * static_cast<int64_t>(height) * width;
  int area = 0;
  for (int64_t i = threadIdx.x; i < static_cast<int64_t>(height) * width; i += THREADS) {
    const TwoTaps row = resize_taps(source_height, height, i / width);
    const TwoTaps column = resize_taps(source_width, width, i % width);
    const T* top = map + row.low * source_width;
    const T* bottom = map + row.high * source_width;
    const T left = static_cast<T>(column.low_weight), right = static_cast<T>(column.high_weight);
    const T value = static_cast<T>(row.low_weight) * (left * top[column.low] + right * top[column.high]) +
                    static_cast<T>(row.high_weight) * (left * bottom[column.low] + right * bottom[column.high]);
    const bool inside = value > threshold;
    out[i] = inside ? T(1) : T(0);
    area += inside;
  }
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, area);
  __syncthreads();
  if (threadIdx.x == 0) areas[blockIdx.x] = static_cast<T>(total);
}

// Divides each row of (rows, channels) by its area + eps.
template <typename T>
__global__ void normalise_kernel(const T* from, T* to, const T* areas, int64_t count, int64_t channels, T eps) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x;
  if (i < count) to[i] = from[i] / (areas[i / channels] + eps);
}

template <typename T>
Tensor normalised(const char* op, const Tensor& values, const Tensor& areas, double eps, cudaStream_t stream) {
  Tensor result = torch::stable::empty_like(values);
  const int64_t count = values.numel();
  if (count == 0) return result;
  const int64_t blocks = (count + THREADS - 1) / THREADS;
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), op, ": too many pooled values");
  device::launch(normalise_kernel<T>, static_cast<unsigned>(blocks), THREADS, 0, stream,
      values.const_data_ptr<T>(), result.mutable_data_ptr<T>(), areas.const_data_ptr<T>(), count,
      values.size(values.dim() - 1), static_cast<T>(eps));
  check_launch(op);
  return result;
}

struct Cells {
  Tensor inside;  // (B, Q, H * W) of 0 / 1
  Tensor areas;   // (B, Q)
};

template <typename T>
Cells all_cells(const char* op, const Tensor& mask_logits, int64_t height, int64_t width, double threshold,
                cudaStream_t stream) {
  const Tensor logits = torch::stable::contiguous(mask_logits);
  const int64_t images = logits.size(0), queries = logits.size(1), masks = images * queries;
  Cells cells{torch::stable::new_empty(logits, {images, queries, height * width}),
              torch::stable::new_empty(logits, {images, queries})};
  if (masks == 0) return cells;
  STD_TORCH_CHECK(masks < (int64_t{1} << 31), op, ": too many masks");
  device::launch(cells_kernel<T>, static_cast<unsigned>(masks), THREADS, 0, stream,
      logits.const_data_ptr<T>(), static_cast<int>(logits.size(2)), static_cast<int>(logits.size(3)),
      static_cast<int>(height), static_cast<int>(width), static_cast<T>(threshold), cells.inside.mutable_data_ptr<T>(),
      cells.areas.mutable_data_ptr<T>());
  check_launch(op);
  return cells;
}

template <typename T>
Tensor pool(const Tensor& features, const Tensor& mask_logits, double threshold, double eps, cudaStream_t stream) {
  const int64_t height = features.size(2), width = features.size(3);
  const Cells cells = all_cells<T>("mask_pool", mask_logits, height, width, threshold, stream);
  const Tensor maps =
      torch::stable::view(torch::stable::contiguous(features), {features.size(0), features.size(1), height * width});
  const Tensor sums = torch::stable::matmul(cells.inside, torch::stable::transpose(maps, 1, 2));
  return normalised<T>("mask_pool", torch::stable::contiguous(sums), cells.areas, eps, stream);
}

template <typename T>
Tensor pool_backward(const Tensor& grad, const Tensor& mask_logits, int64_t height, int64_t width, double threshold,
                     double eps, cudaStream_t stream) {
  const char* op = "mask_pool_backward";
  const Cells cells = all_cells<T>(op, mask_logits, height, width, threshold, stream);
  const Tensor scaled = normalised<T>(op, torch::stable::contiguous(grad), cells.areas, eps, stream);
  const Tensor gradient = torch::stable::matmul(torch::stable::transpose(scaled, 1, 2), cells.inside);
  return torch::stable::view(torch::stable::contiguous(gradient), {grad.size(0), grad.size(2), height, width});
}

void check(const char* op, const char* name, const Tensor& tensor, int64_t rank, const Tensor& mask_logits) {
  STD_TORCH_CHECK(device::holds(mask_logits), op, ": mask_logits must be on a CUDA device");
  check_same_device(op, name, tensor, mask_logits);
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " must have ", rank, " axes, got ", tensor.dim());
  STD_TORCH_CHECK(mask_logits.dim() == 4 && mask_logits.size(2) >= 1 && mask_logits.size(3) >= 1, op,
                  ": mask_logits must have axes (B, Q, h, w) with h and w at least 1");
  STD_TORCH_CHECK(tensor.size(0) == mask_logits.size(0), op, ": ", name, " has ", tensor.size(0),
                  " images but mask_logits ", mask_logits.size(0));
  STD_TORCH_CHECK(tensor.scalar_type() == mask_logits.scalar_type() &&
                      (tensor.scalar_type() == ScalarType::Float || tensor.scalar_type() == ScalarType::Double),
                  op, ": ", name, " and mask_logits must both be float32 or both float64");
}

void check_size(const char* op, int64_t height, int64_t width) {
  constexpr int64_t kLimit = int64_t{1} << 30;
  STD_TORCH_CHECK(height >= 1 && height < kLimit && width >= 1 && width < kLimit, op,
                  ": height and width must be at least 1 and below 2^30, got ", height, " and ", width);
}

Tensor mask_pool(Tensor features, Tensor mask_logits, double threshold, double eps) {
  check("mask_pool", "features", features, 4, mask_logits);
  check_size("mask_pool", features.size(2), features.size(3));
  const device::Guard guard(mask_logits.get_device_index());
  const cudaStream_t stream = stream_of(mask_logits);
  return features.scalar_type() == ScalarType::Float ? pool<float>(features, mask_logits, threshold, eps, stream)
                                                     : pool<double>(features, mask_logits, threshold, eps, stream);
}

Tensor mask_pool_backward(Tensor grad, Tensor mask_logits, int64_t height, int64_t width, double threshold, double eps) {
  check("mask_pool_backward", "grad", grad, 3, mask_logits);
  STD_TORCH_CHECK(grad.size(1) == mask_logits.size(1), "mask_pool_backward: grad must have axes (B, Q, C) for Q masks");
  check_size("mask_pool_backward", height, width);
  const device::Guard guard(mask_logits.get_device_index());
  const cudaStream_t stream = stream_of(mask_logits);
  return grad.scalar_type() == ScalarType::Float
             ? pool_backward<float>(grad, mask_logits, height, width, threshold, eps, stream)
             : pool_backward<double>(grad, mask_logits, height, width, threshold, eps, stream);
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, FROZENMM_DISPATCH_KEY, m) {
  m.impl("mask_pool", TORCH_BOX(&frozenmm::mask_pool));
  m.impl("mask_pool_backward", TORCH_BOX(&frozenmm::mask_pool_backward));
}

// Kernels that are wrong, one for each kind of error that the emulated device must show: `faulty_kernels NAME` runs one.
// `sound` is right and must pass.
#include "emulator.h"

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/cuda/device.cuh"

namespace device = frozenmm::device;

namespace {

constexpr int kThreads = 64;

// Sum of all threads' numbers through shared memory; without the barrier it reads what was not yet written.
__global__ void sum(const int* from, int* to, bool barrier) {
  __shared__ int all[kThreads];
  all[threadIdx.x] = from[threadIdx.x];
  if (barrier) __syncthreads();
  unsigned total = 0;
  for (int i = 0; i < kThreads; ++i) total += static_cast<unsigned>(all[i]);
  to[threadIdx.x] = static_cast<int>(total);
}

__global__ void sum_of_garbage(int* to) {
  __shared__ int total;
  atomicAdd(&total, 1);  // never set to 0
  __syncthreads();
  to[threadIdx.x] = total;
}

__global__ void half_a_warp_shuffles(int* to) {
  if (threadIdx.x % 2) to[threadIdx.x] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
}

__global__ void operations_are_mixed(int* to) {
  to[threadIdx.x] = threadIdx.x % 2 ? __shfl_sync(0xffffffffu, 1, 1) : static_cast<int>(__ballot_sync(0xffffffffu, true));
}

__global__ void barrier_without_all() {
  if (threadIdx.x < 32) __syncthreads();
}

__global__ void reads_at(const float* from, float* to, int64_t at) { to[threadIdx.x] = from[at]; }

__global__ void writes_shared(float* to, int at) {
  __shared__ float all[kThreads];
  all[at] = 1.0f;
  __syncthreads();
  to[threadIdx.x] = all[0];
}

__global__ void writes_dynamic(float* to, int at) {
  float* all = device::dynamic_shared<float>();
  all[at] = 1.0f;
  to[threadIdx.x] = 0.0f;
}

__global__ void reads_wide(const float* from, float* to) {
  to[threadIdx.x] = reinterpret_cast<const float4*>(from)->y;
}

template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), size_t shared_bytes, Arguments... arguments) {
  device::launch(kernel, 1, kThreads, shared_bytes, nullptr, arguments...);
  if (cudaGetLastError() != cudaSuccess) throw std::runtime_error("the launch was refused");
}

int run_named(const std::string& name) {
  std::vector<int> ones(kThreads, 1), sums(kThreads);
  std::vector<float> numbers(kThreads), results(kThreads);
  if (name == "sound") run(sum, 0, ones.data(), sums.data(), true);
  else if (name == "missing_barrier") run(sum, 0, ones.data(), sums.data(), false);
  else if (name == "garbage") run(sum_of_garbage, 0, sums.data());
  else if (name == "divergent_shuffle") run(half_a_warp_shuffles, 0, sums.data());
  else if (name == "mixed_operations") run(operations_are_mixed, 0, sums.data());
  else if (name == "divergent_barrier") run(barrier_without_all, 0);
  else if (name == "read_past_end") run(reads_at, 0, numbers.data(), results.data(), int64_t{kThreads});
  else if (name == "read_before_begin") run(reads_at, 0, numbers.data(), results.data(), int64_t{-1});
  else if (name == "shared_past_end") run(writes_shared, 0, results.data(), kThreads);
  else if (name == "dynamic_past_end") run(writes_dynamic, 256, results.data(), 64);
  else if (name == "misaligned") run(reads_wide, 0, numbers.data() + 1, results.data());
  else if (name == "too_much_shared") run(writes_dynamic, 64 * 1024, results.data(), 0);
  else throw std::runtime_error("unknown kernel " + name);
  for (int total : sums)
    if (name == "sound" || name == "missing_barrier" || name == "garbage")
      if (total != kThreads) throw std::runtime_error("a wrong sum: " + std::to_string(total));
  return 0;
}

}  // namespace

int main(int, char** arguments) {
  try {
    return run_named(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}

// All that the kernels ask of a GPU and its runtime beyond the CUDA language. The same sources compile with a C++ compiler
// when FROZENMM_EMULATED is set: tests/cuda_emulator then stands in for the device.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#if defined(FROZENMM_EMULATED)
#include "emulator.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#define FROZENMM_DISPATCH_KEY CUDA
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define FROZENMM_SM90
#endif

namespace frozenmm::device {

using torch::stable::Tensor;
using Guard = torch::stable::accelerator::DeviceGuard;

inline bool holds(const Tensor& tensor) { return tensor.is_cuda(); }

inline cudaStream_t stream_of(const Tensor& tensor) {
  return static_cast<cudaStream_t>(
      torch::stable::accelerator::getCurrentStream(tensor.get_device_index()).nativeHandle());
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, unsigned threads, size_t shared_bytes, cudaStream_t stream,
            Arguments... arguments) {
  kernel<<<blocks, threads, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
}

// The shared memory whose size the launch says; one array, whatever it is read as.
template <class T>
__device__ inline T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char frozenmm_shared_bytes[];
  return reinterpret_cast<T*>(frozenmm_shared_bytes);
}

}  // namespace frozenmm::device
#endif

namespace frozenmm::device {

inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, op, ": the CUDA kernel could not start: ", cudaGetErrorString(error));
}

}  // namespace frozenmm::device

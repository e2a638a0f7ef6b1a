// A CUDA device for a C++ compiler: what csrc/cuda uses of the language and of the runtime, on one CPU thread.
//
// Each thread of a block is a fibre. A fibre runs until it finishes, waits at a barrier of the block, or takes part in an
// operation of its warp; warps, and the lanes in them, run in random order. What a GPU would compute wrongly in silence is
// an error here: a warp operation that some lanes do not reach, a barrier that some threads never reach, a launch beyond
// the limits. Shared memory holds garbage when a block begins. Compiled with the address and undefined-behaviour
// sanitizers, every access outside a tensor, a shared array or its alignment is one too.
//
// Not modelled: memory order between warps finer than a barrier, registers, time.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

// ------------------------------------------------------------------------------------------------ language
#define __global__ static
#define __device__
#define __launch_bounds__(...)
// Garbage can be written into all shared variables because they lie side by side, in a section of their own.
#define __shared__ static __attribute__((section("emulated_shared")))
#define FROZENMM_DISPATCH_KEY CPU

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned columns, unsigned rows = 1, unsigned layers = 1) : x(columns), y(rows), z(layers) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

using __half = torch::headeronly::Half;
using __nv_bfloat16 = torch::headeronly::BFloat16;
inline float __half2float(__half x) { return static_cast<float>(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return static_cast<float>(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }

using std::max;
using std::min;

// ----------------------------------------------------------------------------------- threads of a block and a warp
namespace emulator {

constexpr unsigned kLanes = 32;

void wait_for_block();
unsigned lane();
// Hands in a number, waits for all lanes of the warp, and returns what each handed in. `operation` is the same for all.
const uint64_t* exchange(const char* operation, unsigned mask, uint64_t mine);

template <class T>
T from_lane(const char* operation, unsigned mask, T mine, unsigned source) {
  static_assert(sizeof(T) <= 8, "a register pair at most");
  uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof(T));
  const uint64_t* all = exchange(operation, mask, bits);
  T value;
  std::memcpy(&value, &all[source], sizeof(T));
  return value;
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait_for_block(); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned first = emulator::lane() / width * width;
  return emulator::from_lane("shfl", mask, value, first + static_cast<unsigned>(source) % width);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const unsigned own = emulator::lane(), other = own ^ static_cast<unsigned>(bits);
  return emulator::from_lane("shfl_xor", mask, value, other / width == own / width ? other : own);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const unsigned own = emulator::lane(), other = own + step;
  return emulator::from_lane("shfl_down", mask, value, other / width == own / width ? other : own);
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  const uint64_t* votes = emulator::exchange("ballot", mask, vote);
  unsigned result = 0;
  for (unsigned i = 0; i < emulator::kLanes; ++i) result |= static_cast<unsigned>(votes[i]) << i;
  return result;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }

template <class T, class U>
T atomicAdd(T* at, U value) {
  const T before = *at;
  *at = static_cast<T>(before + value);
  return before;
}
inline float4 atomicAdd(float4* at, float4 value) {  // from sm_90 on
  const float4 before = *at;
  *at = {before.x + value.x, before.y + value.y, before.z + value.z, before.w + value.w};
  return before;
}
inline int atomicMin(int* at, int value) { return std::exchange(*at, std::min(*at, value)); }
inline int atomicMax(int* at, int value) { return std::exchange(*at, std::max(*at, value)); }

// -------------------------------------------------------------------------------------------------- runtime
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };

namespace emulator {

// Bytes of shared memory that a block may ask for, of an A100 or, with FROZENMM_SM90, of an H100.
#if defined(FROZENMM_SM90)
constexpr size_t kMostShared = 227 * 1024;
#else
constexpr size_t kMostShared = 163 * 1024;
#endif
constexpr size_t kGrantedShared = 48 * 1024;  // without asking

unsigned char* dynamic_shared();
cudaError_t allow_shared(const void* kernel, size_t bytes);
void launch(const void* kernel, dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& body);

}  // namespace emulator

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = static_cast<int>(emulator::kMostShared), cudaSuccess;
}
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  return emulator::allow_shared(reinterpret_cast<const void*>(kernel), static_cast<size_t>(bytes));
}

// ---------------------------------------------------------------------------- what csrc/cuda/device.cuh asks for
namespace frozenmm::device {

using torch::stable::Tensor;

struct Guard {
  explicit Guard(int32_t) {}
};

inline bool holds(const Tensor& tensor) { return tensor.is_cpu(); }
inline cudaStream_t stream_of(const Tensor&) { return nullptr; }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, unsigned threads, size_t shared_bytes, cudaStream_t,
            Arguments... arguments) {
  emulator::launch(reinterpret_cast<const void*>(kernel), blocks, threads, shared_bytes,
                   [=] { kernel(static_cast<Parameters>(arguments)...); });
}

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulator::dynamic_shared());
}

}  // namespace frozenmm::device

// Chooses the instruction set of the mask kernels at run time.
#include "cpu_features.h"
#include "mask_kernels.h"

#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <string>

namespace frozenmm {
namespace {

#if defined(__x86_64__)
bool has_matrix_unit() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-tile") &&
         __builtin_cpu_supports("amx-bf16") && mask_amx_permitted();
}
#endif

}  // namespace

// The variable is read at every call, so that one process can compare them.
const MaskKernels& choose_mask_kernels() {
  const char* value = std::getenv("FROZENMM_CPU");
  const std::string wanted = value ? value : "";
  STD_TORCH_CHECK(wanted.empty() || wanted == "base" || wanted == "avx2" || wanted == "avx512" || wanted == "amx",
                  "FROZENMM_CPU must be base, avx2, avx512 or amx, got ", wanted);
#if defined(__x86_64__)
  static const cpu::Level found = cpu::detect();
  static const bool matrix_unit = found == cpu::Level::avx512 && has_matrix_unit();
  if (matrix_unit && (wanted.empty() || wanted == "amx")) return mask_kernels_amx;
  if (found == cpu::Level::avx512 && wanted != "avx2" && wanted != "base") return mask_kernels_avx512;
  if (found != cpu::Level::base && wanted != "base") return mask_kernels_avx2;
#endif
  return mask_kernels_base;
}

}  // namespace frozenmm

// Chooses the instruction set of the mask kernels at run time.
#include "cpu_features.h"
#include "mask_kernels.h"

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

const MaskKernels& choose_mask_kernels() {
#if defined(__x86_64__)
  const cpu::Level level = cpu::level();
  if (level == cpu::Level::avx512) {
    static const bool matrix_unit = has_matrix_unit();
    return matrix_unit && cpu::wanted() != "avx512" ? mask_kernels_amx : mask_kernels_avx512;
  }
  if (level == cpu::Level::avx2) return mask_kernels_avx2;
#endif
  return mask_kernels_base;
}

}  // namespace frozenmm

#include "ms_deform_attn_kernel.h"

namespace frozenmm::deform {
extern const Kernels kernels_avx512{"avx512", ::reads_tensor, ::forward, ::backward};
}  // namespace frozenmm::deform

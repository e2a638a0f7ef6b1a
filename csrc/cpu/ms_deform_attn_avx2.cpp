#include "ms_deform_attn_kernel.h"

namespace frozenmm::deform {
extern const Kernels kernels_avx2{"avx2", ::forward, ::backward};
}  // namespace frozenmm::deform

#include "ms_deform_attn_kernel.h"

namespace frozenmm::deform {
extern const Kernels kernels_base{"base", ::forward, ::backward};
}  // namespace frozenmm::deform

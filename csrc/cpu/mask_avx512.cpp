// Mask kernels for AVX-512: sixteen lanes.
#if defined(__x86_64__)
#include "mask_kernels.h"

#include <cstdlib>
#include <cstring>
#include <immintrin.h>

namespace frozenmm {
namespace {

#include "mask_vector_avx512.h"

#include "mask_body.h"

}  // namespace

const MaskKernels mask_kernels_avx512{false, N, 12, semantic_rows<pruned_tile>, panoptic_rows, instance_rows, pool_codes,
                                      pool_means};

}  // namespace frozenmm
#endif

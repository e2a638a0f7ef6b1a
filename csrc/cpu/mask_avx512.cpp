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

void semantic(const SemanticJob& job, int64_t first, int64_t end) {
  semantic_rows(job, first, end, [](const SemanticJob&, const Workspace&, const Tile&, Best&) { return false; });
}

}  // namespace

const MaskKernels mask_kernels_avx512{"avx512", N, 12, semantic, panoptic_rows, instance_rows};

}  // namespace frozenmm
#endif

// Mask kernels for processors with a bfloat16 matrix unit (AMX). Class scores are computed there first, from rounded
// operands with a bound on the error; the few classes that can still win a pixel are then summed in float32 exactly as the
// AVX-512 kernel does, so labels and scores have the same bits.
#if defined(__x86_64__)
#include "mask_kernels.h"

#include <cstdlib>
#include <cstring>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define FROZENMM_AMX __attribute__((target("avx512bf16,amx-tile,amx-bf16,avx512bw")))

namespace frozenmm {
namespace {

#include "mask_vector_avx512.h"

#include "mask_body.h"

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Two queries' sigmoids of 16 pixels as interleaved bfloat16, and what the rounding left of them.
FROZENMM_AMX inline void store_pairs(V even, V odd, uint16_t* high, uint16_t* low) {
  alignas(64) static const uint16_t INTERLEAVE[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i order = _mm512_load_si512(INTERLEAVE);
  const __m512i rounded = _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
  _mm512_store_si512(high, rounded);
  if (!low) return;
  const V even_left = sub(even, _mm512_castsi512_ps(_mm512_slli_epi32(rounded, 16)));
  const V odd_left = sub(odd, _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(0xffff0000))));
  _mm512_store_si512(low, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd_left, even_left)));
}

// Sigmoids [Q][32] as matrix operands: pair p, half: 16 pixels x 2 queries. Rows past Q stay zero.
FROZENMM_AMX void make_pairs(const SemanticJob& job, const Workspace& space, bool with_low) {
  const int64_t queries = job.grid.queries;
  for (int64_t q = 0; q < queries; q += 2) {
    for (int half = 0; half < 2; ++half) {
      const float* even = space.sigmoids + q * TILE + half * N;
      // half-major, so that 16 pairs of one half form a tile without gaps
      const int64_t to = ((q / 32 * 2 + half) * 16 + q % 32 / 2) * 32;
      store_pairs(load(even), q + 1 < queries ? load(even + TILE) : set1(0.0f), space.pairs_high + to,
                  with_low ? space.pairs_low + to : nullptr);
    }
  }
}

// Adds weights x pairs over all queries for 32 classes x 32 pixels; tiles 0-3 hold the sums.
FROZENMM_AMX inline void multiply(const uint16_t* weights, int64_t next_classes, const uint16_t* pairs, int64_t steps) {
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, weights + s * 512, 64);
    _tile_loadd(5, weights + next_classes + s * 512, 64);
    _tile_loadd(6, pairs + s * 1024, 64);
    _tile_loadd(7, pairs + s * 1024 + 512, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Approximate scores [K rounded up to 32][32]: the product of the rounded operands, or, when `refine`, what the remainders
// add to it.
FROZENMM_AMX void matrix_scores(const SemanticJob& job, const Workspace& space, bool refine) {
  const int64_t steps = (job.grid.queries + 31) / 32, next = steps * 512;
  __asm__ volatile("" : : : "memory");  // tile loads do not tell the compiler that they read memory
  for (int64_t k = 0; k < job.classes; k += 32) {
    float* out = space.approximate + k * TILE;
    const int64_t first = k / 16 * next;
    if (refine) {
      _tile_loadd(0, out, TILE * 4);
      _tile_loadd(1, out + N, TILE * 4);
      _tile_loadd(2, out + 16 * TILE, TILE * 4);
      _tile_loadd(3, out + 16 * TILE + N, TILE * 4);
      multiply(job.tiles_low + first, next, space.pairs_high, steps);
      multiply(job.tiles_high + first, next, space.pairs_low, steps);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      multiply(job.tiles_high + first, next, space.pairs_high, steps);
    }
    _tile_stored(0, out, TILE * 4);
    _tile_stored(1, out + N, TILE * 4);
    _tile_stored(2, out + 16 * TILE, TILE * 4);
    _tile_stored(3, out + 16 * TILE + N, TILE * 4);
  }
}

// With more than this, the second pass over the remainders costs less than summing all of them exactly.
constexpr int64_t FEW_CANDIDATES = 12;

// All terms are >= 0. Rounding to bfloat16 changes a factor by at most 2^-9, a product by 2^-8 + 2^-18; with remainders
// the product is known to 2^-16. Sums of Q terms add Q roundings of 2^-24 per pass (two per pair on the matrix unit), and
// the exact sum as many. Twice the error of one score separates two.
bool matrix_tile(const SemanticJob& job, const Workspace& space, const Tile& tile, Best& best) {
  const float sums = 8.0f * static_cast<float>((job.grid.queries + 31) / 32 * 32 + 8) * 5.9604645e-8f;
  const V slack[2] = {set1(1e-30f), set1(1e-30f)};  // flushed denormals
  int32_t candidates[MOST_CANDIDATES];
  make_pairs(job, space, false);
  matrix_scores(job, space, false);
  int64_t count = find_candidates(space.approximate, job.classes, slack, 2.1f * (3.91e-3f + sums), FEW_CANDIDATES, candidates);
  if (count < 0) {
    make_pairs(job, space, true);
    matrix_scores(job, space, true);
    count = find_candidates(space.approximate, job.classes, slack, 2.1f * (1.53e-5f + sums), MOST_CANDIDATES, candidates);
  }
  if (count < 0) return false;
  exact_tile(job, tile, candidates, count, best);
  return true;
}

FROZENMM_AMX void configure() {
  const TileConfig config;
  __asm__ volatile("" : : "r"(&config) : "memory");  // the intrinsic names only its first bytes as an operand
  _tile_loadconfig(&config);
}

FROZENMM_AMX void release() { _tile_release(); }

void semantic(const SemanticJob& job, int64_t first, int64_t end) {
  configure();
  semantic_rows<matrix_tile>(job, first, end);
  release();
}

}  // namespace

const MaskKernels mask_kernels_amx{true, N, 12, semantic, panoptic_rows, instance_rows, pool_codes,
                                   pool_means};

bool mask_amx_permitted() {
#if defined(__linux__)
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

}  // namespace frozenmm
#endif

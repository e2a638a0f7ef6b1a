// What the mask operators hand to a kernel of one instruction set. Plain data only: the units that implement it are
// compiled with wider instructions, so nothing here may emit a shared inline function.
#pragma once

#include <cstdint>

namespace frozenmm {

// How groups of `lanes` neighbouring output columns read a row. All groups share one way:
// window 1: their sources lie within `lanes` cells of `base`; 2: within 2 * lanes; 0: anywhere (index is from `base`).
struct ColumnPlan {
  int64_t groups;          // even; those past the image have weight 0
  int32_t taps;            // 1..4
  int32_t window;
  const int32_t* base;     // [groups]
  const int32_t* index;    // [groups][taps][lanes], relative to base
  const float* weight;     // [groups][taps][lanes]
};

struct RowPlan {
  int64_t taps;
  const int32_t* index;    // [height][taps]
  const float* weight;
};

struct MaskGrid {
  const float* logits;     // [Q][h][w]
  int64_t queries, source_height, source_width;
  int64_t used_width;      // columns that any output reads
  int64_t height, width;   // of the output
  RowPlan rows;
  ColumnPlan columns;
};

struct SemanticJob {
  MaskGrid grid;
  int64_t classes;
  // class weights in blocks: the first `wide_blocks` have `block + 1` classes, the others `block`; [block][Q][classes]
  int64_t blocks, wide_blocks, block;
  const float* packed;
  const float* by_class;      // [K][Q]
  const float* largest;       // [Q] max_k weight, or null: no screening
  const uint16_t* tiles_high;  // matrix unit: weights as bfloat16, [K/16][Q/32][16][32]; null if not in use
  const uint16_t* tiles_low;   // what the rounding left, same layout
  int64_t* labels;            // [height][width]
  float* scores;              // [height][width]
  float* class_scores;        // [K][height][width] or null
  int32_t* out_of_memory;     // set to 1 when a kernel could not get its buffers
};

struct PanopticJob {
  MaskGrid grid;
  const float* scores;        // [Q]
  const int32_t* taking_part;  // [count] ascending queries
  int64_t count;
  int32_t* owner;             // [height][width]
  uint8_t* inside;            // [height][width]
  int64_t* areas;             // [Q][3], added to atomically
  int32_t* out_of_memory;
};

struct InstanceJob {
  MaskGrid grid;
  const int64_t* queries;     // [N]
  uint8_t* bits;              // [N][height][row_bytes]
  int64_t row_bytes;
  int32_t* row_areas;         // [N][height]
  float* row_sums;            // [N][height]
  int32_t* out_of_memory;
};

constexpr int64_t POOL_VECTORS = 2;  // a block of channels is this many vectors of `lanes`

struct PoolJob {
  const float* features;      // [B][C][height * width]
  const float* logits;        // [B][Q][source_height][source_width]
  int64_t images, queries, channels, height, width, source_height, source_width;
  const int64_t *row_low, *row_high;  // [height]
  const float *row_low_weight, *row_high_weight;
  const int32_t *column_low, *column_high;  // [width rounded up to lanes]
  const float *column_low_weight, *column_high_weight;
  float threshold, eps;
  int64_t groups;             // of four cells, rounded up to eight
  uint8_t* codes;             // [B][Q][groups]
  float* areas;               // [B][Q]
  float* means;               // [B][Q][C]
  int32_t* out_of_memory;
};

struct MaskKernels {
  bool matrix_unit;
  int32_t lanes;
  int32_t largest_block;      // classes per block at most
  void (*semantic)(const SemanticJob&, int64_t first_row, int64_t end_row);
  void (*panoptic)(const PanopticJob&, int64_t first_row, int64_t end_row);
  void (*instance)(const InstanceJob&, int64_t first, int64_t end);  // of N * height rows
  void (*pool_codes)(const PoolJob&, int64_t first, int64_t end);    // of B * Q masks
  void (*pool_means)(const PoolJob&, int64_t first, int64_t end);    // of B * blocks of channels
};

// The widest kernels of this machine, or narrower ones when FROZENMM_CPU asks for them.
const MaskKernels& choose_mask_kernels();

extern const MaskKernels mask_kernels_base;
#if defined(__x86_64__)
extern const MaskKernels mask_kernels_avx2;
extern const MaskKernels mask_kernels_avx512;
extern const MaskKernels mask_kernels_amx;
// Asks the operating system for the matrix unit's registers; false where it or the unit is missing.
bool mask_amx_permitted();
#endif

}  // namespace frozenmm

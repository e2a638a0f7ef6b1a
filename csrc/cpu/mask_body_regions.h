// Part of mask_body.h: owners of pixels (panoptic) and binary masks (instance).

struct PixelOwners {
  V product[2];
  V owner[2];        // index into taking_part as a float, -1 for none
  unsigned inside[2];
};

template <int TAPS, int WINDOW>
void panoptic_tile(const PanopticJob& job, const float* rows, int64_t stride, int64_t group, const unsigned* valid,
                   int64_t* in_mask, PixelOwners& pixels) {
  const GroupTaps taps[2] = {group_taps(job.grid.columns, group), group_taps(job.grid.columns, group + 1)};
  for (int64_t i = 0; i < job.count; ++i) {
    const V score = set1(job.scores[job.taking_part[i]]);
    for (int half = 0; half < 2; ++half) {
      const V logit = sample<TAPS, WINDOW>(rows + i * stride, taps[half]);
      const unsigned outside = bits(less(logit, set1(0.0f)));
      const unsigned ordered = bits(less(logit, set1(3e38f)));  // false for NaN
      const unsigned inside = ordered & ~outside;
      in_mask[i] += __builtin_popcount(inside & valid[half]);
      // exp(-x) >= 1 - x, so below zero sigmoid(x) <= 1 / (2 - x): nothing to win where score < product * (2 - x)
      const V reach = mul(mul(pixels.product[half], sub(set1(2.0f), logit)), set1(0.9999f));
      const unsigned hopeless = bits(less(score, reach)) & outside;
      if ((~hopeless & valid[half]) == 0) continue;
      const V product = mul(score, sigmoid(logit));
      const M wins = less(pixels.product[half], product);
      const unsigned won = bits(wins);
      pixels.product[half] = select(wins, product, pixels.product[half]);
      pixels.owner[half] = select(wins, set1(static_cast<float>(i)), pixels.owner[half]);
      pixels.inside[half] = (pixels.inside[half] & ~won) | (inside & won);
    }
  }
}

// Writes the owners of one tile and counts them: counts[i] = {owned, in mask, both}.
inline void write_owners(const PanopticJob& job, const PixelOwners& pixels, int64_t pixel, int64_t width,
                         int64_t* owned, int64_t* both) {
  alignas(64) float owner[TILE];
  store(owner, pixels.owner[0]);
  store(owner + N, pixels.owner[1]);
  for (int64_t i = 0; i < width; ++i) {
    const int32_t slot = static_cast<int32_t>(owner[i]);
    const unsigned inside = slot < 0 ? 0 : (pixels.inside[i / N] >> (i % N)) & 1u;
    job.owner[pixel + i] = slot < 0 ? -1 : job.taking_part[slot];
    job.inside[pixel + i] = static_cast<uint8_t>(inside);
    if (slot >= 0) {
      owned[slot] += 1;
      both[slot] += inside;
    }
  }
}

inline void panoptic_rows(const PanopticJob& job, int64_t first_row, int64_t end_row) {
  const MaskGrid& grid = job.grid;
  const int64_t stride = row_stride(grid), row_bytes = job.count * stride * 4, count_bytes = job.count * 8;
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, row_bytes + 3 * count_bytes + 4 * 64)) {
    __atomic_store_n(job.out_of_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  char* from = static_cast<char*>(memory);
  float* rows = static_cast<float*>(take(row_bytes, from));
  int64_t* counts[3];
  for (int64_t*& count : counts) {
    count = static_cast<int64_t*>(take(count_bytes, from));
    memset(count, 0, count_bytes);
  }
  memset(rows, 0, row_bytes);
  for (int64_t y = first_row; y < end_row; ++y) {
    for (int64_t i = 0; i < job.count; ++i) blend_row(grid, job.taking_part[i], y, rows + i * stride);
    for (int64_t x = 0; x < grid.width; x += TILE) {
      const int64_t left = grid.width - x, width = left < TILE ? left : TILE;
      const unsigned existing = width == 32 ? ~0u : (1u << width) - 1u;
      const unsigned valid[2] = {existing & ((1u << N) - 1u), existing >> N};
      PixelOwners pixels{{set1(-1.0f), set1(-1.0f)}, {set1(-1.0f), set1(-1.0f)}, {0, 0}};
      FROZENMM_BY_PLAN(grid.columns, panoptic_tile, job, rows, stride, x / N, valid, counts[1], pixels)
      write_owners(job, pixels, y * grid.width + x, width, counts[0], counts[2]);
    }
  }
  for (int64_t i = 0; i < job.count; ++i) {
    for (int c = 0; c < 3; ++c) {
      __atomic_fetch_add(job.areas + job.taking_part[i] * 3 + c, counts[c][i], __ATOMIC_RELAXED);
    }
  }
  free(memory);
}

struct RowResult {
  uint8_t* bits;
  int64_t area;
  V sum;
};

template <int TAPS, int WINDOW>
void instance_row(const MaskGrid& grid, const float* row, RowResult& result) {
  for (int64_t x = 0; x < grid.width; x += TILE) {
    const int64_t left = grid.width - x, width = left < TILE ? left : TILE;
    const unsigned existing = width == 32 ? ~0u : (1u << width) - 1u;
    unsigned inside = 0;
    for (int half = 0; half < 2; ++half) {
      const V logit = sample<TAPS, WINDOW>(row, group_taps(grid.columns, x / N + half));
      const M positive = less(set1(0.0f), logit);
      const unsigned lanes = bits(positive) & (existing >> (half * N));
      if (!lanes) continue;
      inside |= lanes << (half * N);
      // columns past the image have weight 0, hence logit 0, which is not positive
      result.sum = add(result.sum, select(positive, sigmoid(logit), set1(0.0f)));
    }
    result.area += __builtin_popcount(inside);
    for (int64_t byte = 0; byte * 8 < width; ++byte) {
      result.bits[x / 8 + byte] = static_cast<uint8_t>(inside >> (8 * byte));
    }
  }
}

inline void instance_rows(const InstanceJob& job, int64_t first, int64_t end) {
  const MaskGrid& grid = job.grid;
  const int64_t stride = row_stride(grid);
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, stride * 4)) {
    __atomic_store_n(job.out_of_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  float* row = static_cast<float*>(memory);
  memset(row, 0, stride * 4);
  for (int64_t i = first; i < end; ++i) {
    blend_row(grid, job.queries[i / grid.height], i % grid.height, row);
    RowResult result{job.bits + i * job.row_bytes, 0, set1(0.0f)};
    FROZENMM_BY_PLAN(grid.columns, instance_row, grid, row, result)
    alignas(64) float part[N];
    store(part, result.sum);
    float sum = 0.0f;
    for (int lane = 0; lane < N; ++lane) sum += part[lane];
    job.row_areas[i] = static_cast<int32_t>(result.area);
    job.row_sums[i] = sum;
  }
  free(memory);
}

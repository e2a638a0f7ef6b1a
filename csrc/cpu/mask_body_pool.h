// Part of mask_body.h: pooling under binary masks. Sums over a mask are assembled from tables: of every four cells all 16
// partial sums are made once, and each query adds the one that its mask asks for, a quarter of the work of a product; runs
// of cells that a mask leaves out cost nothing.

constexpr int VECTORS = POOL_VECTORS;
constexpr int BLOCK = VECTORS * N;  // channels at a time
constexpr int GROUPS = 8;     // groups of four cells per table

// Binary masks of rows [first, end) of (images * queries): a code of 4 bits per group of cells, and the area.
inline void pool_codes(const PoolJob& job, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const float* map = job.logits + i * job.source_height * job.source_width;
    uint8_t* codes = job.codes + i * job.groups;
    memset(codes, 0, job.groups);
    int64_t area = 0;
    for (int64_t y = 0; y < job.height; ++y) {
      const float* top = map + job.row_low[y] * job.source_width;
      const float* bottom = map + job.row_high[y] * job.source_width;
      // rows are far apart: the next pair is asked for while this one is worked on
      const int64_t next = y + 1 < job.height ? y + 1 : y;
      for (int64_t x = 0; x < job.source_width; x += 16) {
        __builtin_prefetch(map + job.row_low[next] * job.source_width + x);
        __builtin_prefetch(map + job.row_high[next] * job.source_width + x);
      }
      const V upper = set1(job.row_low_weight[y]), lower = set1(job.row_high_weight[y]);
      for (int64_t x = 0; x < job.width; x += N) {  // the column tables are padded to whole vectors
        const V left = load(job.column_low_weight + x), right = load(job.column_high_weight + x);
        const int32_t *low = job.column_low + x, *high = job.column_high + x;
        const V above = fma(right, gather(top, high), mul(left, gather(top, low)));
        const V below = fma(right, gather(bottom, high), mul(left, gather(bottom, low)));
        unsigned inside = bits(less(set1(job.threshold), fma(lower, below, mul(upper, above))));
        const int64_t left_over = job.width - x;
        if (left_over < N) inside &= (1u << left_over) - 1u;
        area += __builtin_popcount(inside);
        for (; inside; inside &= inside - 1) {
          const int64_t cell = y * job.width + x + __builtin_ctz(inside);
          codes[cell / 4] = static_cast<uint8_t>(codes[cell / 4] | 1u << (cell % 4));
        }
      }
    }
    job.areas[i] = static_cast<float>(area);
  }
}

// Tables of GROUPS groups of cells for BLOCK channels: [group][code][channel].
inline void pool_tables(const PoolJob& job, const float* features, int64_t channels, int64_t first_cell, float* cells,
                        float* tables) {
  const int64_t all = job.height * job.width;
  const int64_t count = all - first_cell < GROUPS * 4 ? all - first_cell : GROUPS * 4;
  memset(cells, 0, sizeof(float) * GROUPS * 4 * BLOCK);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < count; ++i) cells[i * BLOCK + c] = features[c * all + first_cell + i];
  }
  for (int g = 0; g < GROUPS; ++g) {
    float* table = tables + g * 16 * BLOCK;
    memset(table, 0, sizeof(float) * BLOCK);
    for (int code = 1; code < 16; ++code) {
      const float* rest = table + (code & (code - 1)) * BLOCK;
      const float* cell = cells + (g * 4 + __builtin_ctz(code)) * BLOCK;
      for (int c = 0; c < BLOCK; c += N) store(table + code * BLOCK + c, add(load(rest + c), load(cell + c)));
    }
  }
}

// Means of blocks [first, end) of (images * channel blocks).
inline void pool_means(const PoolJob& job, int64_t first, int64_t end) {
  const int64_t blocks = (job.channels + BLOCK - 1) / BLOCK, cells = job.height * job.width;
  const int64_t table_bytes = GROUPS * 16 * BLOCK * 4, cell_bytes = GROUPS * 4 * BLOCK * 4;
  const int64_t sum_bytes = job.queries * BLOCK * 4;
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, table_bytes + cell_bytes + sum_bytes + 64)) {
    __atomic_store_n(job.out_of_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  char* from = static_cast<char*>(memory);
  float* tables = static_cast<float*>(take(table_bytes, from));
  float* cell_values = static_cast<float*>(take(cell_bytes, from));
  float* sums = static_cast<float*>(take(sum_bytes, from));
  for (int64_t i = first; i < end; ++i) {
    const int64_t image = i / blocks, channel = i % blocks * BLOCK;
    const int64_t channels = job.channels - channel < BLOCK ? job.channels - channel : BLOCK;
    const float* features = job.features + (image * job.channels + channel) * cells;
    memset(sums, 0, sum_bytes);
    for (int64_t g = 0; g * 4 < cells; g += GROUPS) {
      pool_tables(job, features, channels, g * 4, cell_values, tables);
      for (int64_t q = 0; q < job.queries; ++q) {
        const uint8_t* codes = job.codes + (image * job.queries + q) * job.groups + g;
        uint64_t any;
        memcpy(&any, codes, sizeof any);
        if (!any) continue;
        V sum[VECTORS];
        for (int v = 0; v < VECTORS; ++v) sum[v] = load(sums + q * BLOCK + v * N);
        for (int k = 0; k < GROUPS; ++k) {
          const float* entry = tables + (k * 16 + codes[k]) * BLOCK;
          for (int v = 0; v < VECTORS; ++v) sum[v] = add(sum[v], load(entry + v * N));
        }
        for (int v = 0; v < VECTORS; ++v) store(sums + q * BLOCK + v * N, sum[v]);
      }
    }
    for (int64_t q = 0; q < job.queries; ++q) {
      const float divisor = job.areas[image * job.queries + q] + job.eps;
      float* out = job.means + (image * job.queries + q) * job.channels + channel;
      for (int64_t c = 0; c < channels; ++c) out[c] = sums[q * BLOCK + c] / divisor;
    }
  }
  free(memory);
}

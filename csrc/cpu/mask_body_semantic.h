// Part of mask_body.h: class scores, their maximum, and ways to find it with less work.

struct Best {
  V score[2];
  V label[2];  // class index as a float: exact below 2^24
};

inline void challenge(Best& best, const V* score, int64_t label) {
  const V name = set1(static_cast<float>(label));
  for (int half = 0; half < 2; ++half) {
    const M wins = less(best.score[half], score[half]);
    best.score[half] = select(wins, score[half], best.score[half]);
    best.label[half] = select(wins, name, best.label[half]);
  }
}

struct Tile {
  const float* sigmoids;      // [Q][TILE]
  const int32_t* active;      // queries to sum over, or null for all
  int64_t count;              // of them
  int64_t first_pixel;        // offset of the tile in an output map
  int64_t width;              // columns of it that exist
};

template <int CLASSES>
inline void sum_block(const float* weights, const Tile& tile, V sums[][2]) {
  for (int c = 0; c < CLASSES; ++c) sums[c][0] = sums[c][1] = set1(0.0f);
  for (int64_t i = 0; i < tile.count; ++i) {
    const int64_t q = tile.active ? tile.active[i] : i;
    const V left = load(tile.sigmoids + q * TILE), right = load(tile.sigmoids + q * TILE + N);
    const float* weight = weights + q * CLASSES;
#pragma GCC unroll 16
    for (int c = 0; c < CLASSES; ++c) {
      const V w = set1(weight[c]);
      sums[c][0] = fma(w, left, sums[c][0]);
      sums[c][1] = fma(w, right, sums[c][1]);
    }
  }
}

inline void store_part(float* to, const V* sums, int64_t width) {
  if (width == TILE) {
    store(to, sums[0]);
    store(to + N, sums[1]);
    return;
  }
  alignas(64) float part[TILE];
  store(part, sums[0]);
  store(part + N, sums[1]);
  for (int64_t i = 0; i < width; ++i) to[i] = part[i];
}

// One block of classes over all queries: the running best, and the class scores if they are wanted.
template <int CLASSES>
void full_block(const SemanticJob& job, const float* weights, int64_t first_class, const Tile& tile, Best& best) {
  V sums[CLASSES][2];
  sum_block<CLASSES>(weights, tile, sums);
  for (int c = 0; c < CLASSES; ++c) {
    const int64_t k = first_class + c;
    if (k == 0) {
      // a NaN stays: it is never less than another score
      best = {{sums[0][0], sums[0][1]}, {set1(0.0f), set1(0.0f)}};
    } else {
      challenge(best, sums[c], k);
    }
    if (job.class_scores) {
      store_part(job.class_scores + k * job.grid.height * job.grid.width + tile.first_pixel, sums[c], tile.width);
    }
  }
}

// One block of classes over the active queries, into [K][TILE].
template <int CLASSES>
void partial_block(const float* weights, int64_t first_class, const Tile& tile, float* partial) {
  V sums[CLASSES][2];
  sum_block<CLASSES>(weights, tile, sums);
  for (int c = 0; c < CLASSES; ++c) {
    store(partial + (first_class + c) * TILE, sums[c][0]);
    store(partial + (first_class + c) * TILE + N, sums[c][1]);
  }
}

#define FROZENMM_BY_BLOCK(SIZE, FUNCTION, ...)                 \
  switch (SIZE) {                                              \
    case 1: FUNCTION<1>(__VA_ARGS__); break;                   \
    case 2: FUNCTION<2>(__VA_ARGS__); break;                   \
    case 3: FUNCTION<3>(__VA_ARGS__); break;                   \
    case 4: FUNCTION<4>(__VA_ARGS__); break;                   \
    case 5: FUNCTION<5>(__VA_ARGS__); break;                   \
    case 6: FUNCTION<6>(__VA_ARGS__); break;                   \
    case 7: FUNCTION<7>(__VA_ARGS__); break;                   \
    case 8: FUNCTION<8>(__VA_ARGS__); break;                   \
    case 9: FUNCTION<9>(__VA_ARGS__); break;                   \
    case 10: FUNCTION<10>(__VA_ARGS__); break;                 \
    case 11: FUNCTION<11>(__VA_ARGS__); break;                 \
    default: FUNCTION<12>(__VA_ARGS__); break;                 \
  }

// Every class of the tile, in full.
inline void full_tile(const SemanticJob& job, const Tile& tile, Best& best) {
  const float* weights = job.packed;
  int64_t k = 0;
  for (int64_t b = 0; b < job.blocks; ++b) {
    const int64_t size = job.block + (b < job.wide_blocks);
    FROZENMM_BY_BLOCK(size, full_block, job, weights, k, tile, best)
    weights += size * job.grid.queries;
    k += size;
  }
}

// At most this many classes are summed exactly before a full tile is the cheaper way.
constexpr int64_t MOST_CANDIDATES = 24;

// Classes that can win somewhere in the tile, given approximate scores that lie within `slack` (absolute) and `relative`
// of the truth. Returns their number, or -1 if there are more than `most`, or NaN made the question void.
inline int64_t find_candidates(const float* approximate, int64_t classes, const V* slack, float relative, int64_t most,
                               int32_t* candidates) {
  V top[2] = {load(approximate), load(approximate + N)};
  for (int64_t k = 1; k < classes; ++k) {
    for (int half = 0; half < 2; ++half) {
      const V score = load(approximate + k * TILE + half * N);
      top[half] = select(less(top[half], score), score, top[half]);
    }
  }
  for (int half = 0; half < 2; ++half) top[half] = sub(mul(top[half], set1(1.0f - relative)), slack[half]);
  int64_t count = 0;
  unsigned covered[2] = {0, 0};
  for (int64_t k = 0; k < classes; ++k) {
    const unsigned left = bits(less(top[0], load(approximate + k * TILE)));
    const unsigned right = bits(less(top[1], load(approximate + k * TILE + N)));
    if (!(left | right)) continue;
    if (count == most) return -1;
    covered[0] |= left;
    covered[1] |= right;
    candidates[count++] = static_cast<int32_t>(k);
  }
  constexpr unsigned ALL = (1u << N) - 1u;
  return covered[0] == ALL && covered[1] == ALL ? count : -1;
}

template <int COUNT>
inline void exact_classes(const SemanticJob& job, const Tile& tile, const int32_t* candidates, V sums[][2]) {
  const float* weight[COUNT];
  for (int c = 0; c < COUNT; ++c) {
    weight[c] = job.by_class + candidates[c] * job.grid.queries;
    sums[c][0] = sums[c][1] = set1(0.0f);
  }
  for (int64_t q = 0; q < job.grid.queries; ++q) {
    const V left = load(tile.sigmoids + q * TILE), right = load(tile.sigmoids + q * TILE + N);
#pragma GCC unroll 4
    for (int c = 0; c < COUNT; ++c) {
      const V w = set1(weight[c][q]);
      sums[c][0] = fma(w, left, sums[c][0]);
      sums[c][1] = fma(w, right, sums[c][1]);
    }
  }
}

// The candidates' scores in the same order of summation as a full tile, hence with the same bits; ascending, so that the
// lowest class wins a tie.
inline void exact_tile(const SemanticJob& job, const Tile& tile, const int32_t* candidates, int64_t count, Best& best) {
  for (int64_t i = 0; i < count;) {
    V sums[4][2];
    const int64_t step = count - i >= 4 ? 4 : count - i >= 2 ? 2 : 1;
    if (step == 4) {
      exact_classes<4>(job, tile, candidates + i, sums);
    } else if (step == 2) {
      exact_classes<2>(job, tile, candidates + i, sums);
    } else {
      exact_classes<1>(job, tile, candidates + i, sums);
    }
    for (int64_t c = 0; c < step; ++c) {
      if (i + c == 0) {
        const V name = set1(static_cast<float>(candidates[0]));
        best = {{sums[0][0], sums[0][1]}, {name, name}};
      } else {
        challenge(best, sums[c], candidates[i + c]);
      }
    }
    i += step;
  }
}

struct Workspace {
  float* rows;          // [Q][stride]
  float* sigmoids;      // [Q][TILE]
  float* approximate;   // [K rounded up to 32][TILE]
  int32_t* active;      // [Q]
  uint16_t* pairs_high;  // matrix unit: sigmoids as bfloat16 pairs, [Q rounded up to 32 / 2][2 halves][16][2]
  uint16_t* pairs_low;
  int64_t stride;
};

// Queries whose share matters in this tile; what the others could add at most goes to `slack`.
inline int64_t find_active(const SemanticJob& job, const float* sigmoids, int32_t* active, V* slack) {
  const float smallest = 0.25f / static_cast<float>(job.grid.queries);
  const V bar = set1(smallest);
  slack[0] = slack[1] = set1(1e-30f);
  int64_t count = 0;
  for (int64_t q = 0; q < job.grid.queries; ++q) {
    const V largest = set1(job.largest[q]);
    const V left = mul(load(sigmoids + q * TILE), largest), right = mul(load(sigmoids + q * TILE + N), largest);
    if (bits(less(bar, left)) | bits(less(bar, right))) {
      active[count++] = static_cast<int32_t>(q);
    } else {
      slack[0] = add(slack[0], left);
      slack[1] = add(slack[1], right);
    }
  }
  for (int half = 0; half < 2; ++half) slack[half] = mul(slack[half], set1(1.001f));  // its own roundings
  return count;
}

// Scores from the active queries only, checked; false if that cannot settle the labels.
inline bool pruned_tile(const SemanticJob& job, const Workspace& space, const Tile& full, Best& best) {
  V slack[2];
  const int64_t queries = job.grid.queries;
  Tile tile = full;
  tile.active = space.active;
  tile.count = find_active(job, space.sigmoids, space.active, slack);
  if (tile.count * 2 > queries) return false;
  const float* weights = job.packed;
  int64_t k = 0;
  for (int64_t b = 0; b < job.blocks; ++b) {
    const int64_t size = job.block + (b < job.wide_blocks);
    FROZENMM_BY_BLOCK(size, partial_block, weights, k, tile, space.approximate)
    weights += size * queries;
    k += size;
  }
  // each of the two sums carries at most (Q + 1) roundings; four times that covers both and the comparison
  const float relative = 4.0f * static_cast<float>(queries + 8) * 5.9604645e-8f;
  int32_t candidates[MOST_CANDIDATES];
  const int64_t count = find_candidates(space.approximate, job.classes, slack, relative, MOST_CANDIDATES, candidates);
  if (count < 0) return false;
  exact_tile(job, full, candidates, count, best);
  return true;
}

inline void write_labels(const SemanticJob& job, const Tile& tile, const Best& best) {
  store_part(job.scores + tile.first_pixel, best.score, tile.width);
  alignas(64) float label[TILE];
  store(label, best.label[0]);
  store(label + N, best.label[1]);
  int64_t* to = job.labels + tile.first_pixel;
  for (int64_t i = 0; i < tile.width; ++i) to[i] = static_cast<int64_t>(static_cast<int32_t>(label[i]));
}

// One allocation for all buffers of a thread; null if there is no memory. Freed with free().
inline void* make_workspace(const SemanticJob& job, Workspace& space) {
  const int64_t queries = job.grid.queries, padded = (queries + 31) / 32 * 32;
  space.stride = row_stride(job.grid);
  const int64_t rows = queries * space.stride * 4, sigmoids = queries * TILE * 4;
  const int64_t approximate = (job.classes + 31) / 32 * 32 * TILE * 4, pairs = padded * TILE * 2;
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, rows + sigmoids + approximate + queries * 4 + 2 * pairs + 6 * 64)) return nullptr;
  char* from = static_cast<char*>(memory);
  space.rows = static_cast<float*>(take(rows, from));
  space.sigmoids = static_cast<float*>(take(sigmoids, from));
  space.approximate = static_cast<float*>(take(approximate, from));
  space.active = static_cast<int32_t*>(take(queries * 4, from));
  space.pairs_high = static_cast<uint16_t*>(take(pairs, from));
  space.pairs_low = static_cast<uint16_t*>(take(pairs, from));
  memset(space.rows, 0, rows);
  memset(space.pairs_high, 0, pairs);
  memset(space.pairs_low, 0, pairs);
  return memory;
}

using Shortcut = bool (*)(const SemanticJob&, const Workspace&, const Tile&, Best&);

// Rows of the label map. SHORTCUT finds a tile's best classes with less work than the full sums, or returns false.
template <Shortcut SHORTCUT>
void semantic_rows(const SemanticJob& job, int64_t first_row, int64_t end_row) {
  Workspace space;
  void* memory = make_workspace(job, space);
  if (!memory) {
    __atomic_store_n(job.out_of_memory, 1, __ATOMIC_RELAXED);
    return;
  }
  const MaskGrid& grid = job.grid;
  const bool screen = job.largest && !job.class_scores;
  for (int64_t y = first_row; y < end_row; ++y) {
    for (int64_t q = 0; q < grid.queries; ++q) blend_row(grid, q, y, space.rows + q * space.stride);
    for (int64_t x = 0; x < grid.width; x += TILE) {
      FROZENMM_BY_PLAN(grid.columns, fill_tile, grid, space.rows, space.stride, x / N, space.sigmoids)
      const int64_t left = grid.width - x;
      const Tile tile{space.sigmoids, nullptr, grid.queries, y * grid.width + x, left < TILE ? left : TILE};
      Best best;
      if (!screen || !SHORTCUT(job, space, tile, best)) full_tile(job, tile, best);
      write_labels(job, tile, best);
    }
  }
  free(memory);
}

// Part of mask_body.h: logits of a tile of output columns.

constexpr int TILE = 2 * N;  // output columns worked on at once

// Source cells of one output row, blended over the rows that it reads.
inline void blend_row(const MaskGrid& grid, int64_t query, int64_t row, float* out) {
  const int64_t taps = grid.rows.taps;
  const float* source[4];
  float weight[4];
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t from = grid.rows.index[row * taps + t];
    source[t] = grid.logits + (query * grid.source_height + from) * grid.source_width;
    weight[t] = grid.rows.weight[row * taps + t];
  }
  int64_t x = 0;
  for (; x + N <= grid.used_width; x += N) {
    V sum = mul(clamp_infinite(load(source[0] + x)), set1(weight[0]));
    for (int64_t t = 1; t < taps; ++t) sum = fma(clamp_infinite(load(source[t] + x)), set1(weight[t]), sum);
    store(out + x, sum);
  }
  if (x < grid.used_width) {
    alignas(64) float part[N];
    V sum = set1(0.0f);
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t i = 0; i < N; ++i) part[i] = x + i < grid.used_width ? source[t][x + i] : 0.0f;
      sum = fma(clamp_infinite(load(part)), set1(weight[t]), sum);
    }
    store(out + x, sum);
  }
}

// Room for one blended row, so that windows may be read past its end.
inline int64_t row_stride(const MaskGrid& grid) {
  return (grid.used_width + N - 1) / N * N + 2 * N;
}

struct GroupTaps {
  const int32_t* index;
  const float* weight;
  int64_t base;
};

inline GroupTaps group_taps(const ColumnPlan& plan, int64_t group) {
  return {plan.index + group * plan.taps * N, plan.weight + group * plan.taps * N, plan.base[group]};
}

// Logits of one group of columns from a blended row.
template <int TAPS, int WINDOW>
inline V sample(const float* row, const GroupTaps& taps) {
  const float* from = row + taps.base;
  V sum;
  if (WINDOW == 1) {
    const V cells = load(from);
    sum = mul(permute1(cells, taps.index), load(taps.weight));
    for (int t = 1; t < TAPS; ++t) sum = fma(permute1(cells, taps.index + t * N), load(taps.weight + t * N), sum);
  } else if (WINDOW == 2) {
    const V low = load(from), high = load(from + N);
    sum = mul(permute2(low, high, taps.index), load(taps.weight));
    for (int t = 1; t < TAPS; ++t) {
      sum = fma(permute2(low, high, taps.index + t * N), load(taps.weight + t * N), sum);
    }
  } else {
    sum = mul(gather(from, taps.index), load(taps.weight));
    for (int t = 1; t < TAPS; ++t) sum = fma(gather(from, taps.index + t * N), load(taps.weight + t * N), sum);
  }
  return sum;
}

// Calls `FUNCTION<taps, window>(arguments)` for the plan at hand.
#define FROZENMM_BY_PLAN(PLAN, FUNCTION, ...)                                              \
  switch ((PLAN).taps * 3 + (PLAN).window) {                                               \
    case 3: FUNCTION<1, 0>(__VA_ARGS__); break;                                            \
    case 4: FUNCTION<1, 1>(__VA_ARGS__); break;                                            \
    case 5: FUNCTION<1, 2>(__VA_ARGS__); break;                                            \
    case 6: FUNCTION<2, 0>(__VA_ARGS__); break;                                            \
    case 7: FUNCTION<2, 1>(__VA_ARGS__); break;                                            \
    case 8: FUNCTION<2, 2>(__VA_ARGS__); break;                                            \
    case 9: FUNCTION<3, 0>(__VA_ARGS__); break;                                            \
    case 10: FUNCTION<3, 1>(__VA_ARGS__); break;                                           \
    case 11: FUNCTION<3, 2>(__VA_ARGS__); break;                                           \
    case 12: FUNCTION<4, 0>(__VA_ARGS__); break;                                           \
    case 13: FUNCTION<4, 1>(__VA_ARGS__); break;                                           \
    default: FUNCTION<4, 2>(__VA_ARGS__); break;                                           \
  }

template <int TAPS, int WINDOW>
void fill_tile(const MaskGrid& grid, const float* rows, int64_t stride, int64_t group, float* tile) {
  const GroupTaps left = group_taps(grid.columns, group), right = group_taps(grid.columns, group + 1);
  for (int64_t q = 0; q < grid.queries; ++q) {
    const float* row = rows + q * stride;
    store(tile + q * TILE, sigmoid(sample<TAPS, WINDOW>(row, left)));
    store(tile + q * TILE + N, sigmoid(sample<TAPS, WINDOW>(row, right)));
  }
}

inline void* take(int64_t bytes, char*& from) {
  char* taken = from;
  from += (bytes + 63) / 64 * 64;
  return taken;
}

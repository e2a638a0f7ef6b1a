// COCO run lengths of packed masks: column-major runs that start with the background, as compressed text.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

namespace frozenmm {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Transposes an 8 x 8 bit block: bit c of byte r goes to bit r of byte c.
uint64_t transpose_bits(uint64_t block) {
  uint64_t moved = (block ^ (block >> 7)) & 0x00aa00aa00aa00aaULL;
  block ^= moved ^ (moved << 7);
  moved = (block ^ (block >> 14)) & 0x0000cccc0000ccccULL;
  block ^= moved ^ (moved << 14);
  moved = (block ^ (block >> 28)) & 0x00000000f0f0f0f0ULL;
  return block ^ moved ^ (moved << 28);
}

// Bytes of eight neighbouring columns as eight columns of 64-row words, row r in bit r % 64.
void read_columns(const uint8_t* bits, int64_t height, int64_t row_bytes, int64_t words, uint64_t* columns) {
  std::memset(columns, 0, 8 * words * sizeof(uint64_t));
  for (int64_t y = 0; y < height; y += 8) {
    uint64_t block = 0;
    const int64_t rows = std::min<int64_t>(8, height - y);
    for (int64_t r = 0; r < rows; ++r) block |= static_cast<uint64_t>(bits[(y + r) * row_bytes]) << (8 * r);
    if (!block) continue;
    block = transpose_bits(block);
    for (int c = 0; c < 8; ++c) columns[c * words + y / 64] |= (block >> (8 * c) & 0xff) << (y % 64);
  }
}

struct RunWriter {
  std::string text;
  int64_t recent[3] = {0, 0, 0};  // the last three runs, newest first
  int64_t runs = 0;

  // From the fourth run on the difference to the run before last; five bits per character, sign-extended.
  void add(int64_t run) {
    int64_t value = runs > 2 ? run - recent[1] : run;
    bool more = true;
    while (more) {
      const int64_t low = value & 31;
      value >>= 5;
      more = value != (low & 16 ? -1 : 0);
      text.push_back(static_cast<char>((low | (more ? 32 : 0)) + 48));
    }
    recent[2] = recent[1];
    recent[1] = recent[0];
    recent[0] = run;
    ++runs;
  }
};

std::string encode(const uint8_t* bits, int64_t height, int64_t width, int64_t row_bytes) {
  const int64_t words = (height + 63) / 64;
  std::vector<uint64_t> columns(8 * words);
  RunWriter writer;
  uint64_t state = 0;      // the value of the current run
  int64_t start = 0;       // where it began
  for (int64_t x = 0; x < width; ++x) {
    if (x % 8 == 0) read_columns(bits + x / 8, height, row_bytes, words, columns.data());
    const uint64_t* column = &columns[(x % 8) * words];
    for (int64_t w = 0; w < words; ++w) {
      const int64_t rows = std::min<int64_t>(64, height - w * 64);
      uint64_t edges = column[w] ^ (column[w] << 1 | state);
      if (rows < 64) edges &= (uint64_t{1} << rows) - 1;
      for (; edges; edges &= edges - 1) {
        const int64_t at = x * height + w * 64 + __builtin_ctzll(edges);
        writer.add(at - start);
        start = at;
      }
      state = column[w] >> (rows - 1) & 1;
    }
  }
  writer.add(height * width - start);
  return writer.text;
}

std::tuple<Tensor, Tensor> mask_rle(Tensor bits, int64_t width) {
  STD_TORCH_CHECK(bits.dim() == 3 && bits.scalar_type() == ScalarType::Byte && bits.is_cpu(),
                  "mask_rle: bits must be uint8 on the CPU with axes (N, H, bytes)");
  STD_TORCH_CHECK(width >= 1 && bits.size(2) == (width + 7) / 8 && bits.size(1) >= 1, "mask_rle: width ", width,
                  " does not belong to ", bits.size(2), " bytes per row, or a mask has no row");
  const Tensor packed = torch::stable::contiguous(bits);
  const int64_t count = packed.size(0), height = packed.size(1), row_bytes = packed.size(2);
  const uint8_t* data = packed.const_data_ptr<uint8_t>();
  std::vector<std::string> texts(count);
  torch::stable::parallel_for(0, count, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) texts[i] = encode(data + i * height * row_bytes, height, width, row_bytes);
  });
  Tensor offsets = torch::stable::new_empty(packed, {count + 1}, ScalarType::Long);
  int64_t* offset = offsets.mutable_data_ptr<int64_t>();
  offset[0] = 0;
  for (int64_t i = 0; i < count; ++i) offset[i + 1] = offset[i] + static_cast<int64_t>(texts[i].size());
  Tensor all = torch::stable::new_empty(packed, {offset[count]}, ScalarType::Byte);
  uint8_t* to = all.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + offset[i], texts[i].data(), texts[i].size());
  return {all, offsets};
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) {
  m.impl("mask_rle", TORCH_BOX(&frozenmm::mask_rle));
}

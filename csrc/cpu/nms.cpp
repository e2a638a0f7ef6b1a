// Greedy non-maximum suppression of boxes that are already sorted by falling score.
//
// Each box is compared with those kept so far, which lie in five rows of numbers, so that a chunk of them is one vector
// operation each. The quotient is formed, not avoided: a product would fall on the other side of the threshold now and then.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <limits>
#include <vector>

namespace frozenmm {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int CHUNK = 16;

template <class T>
struct Kept {
  std::vector<T> x1, y1, x2, y2, area;
  int64_t count = 0;

  // Places past the last box hold NaN, which is above no threshold.
  explicit Kept(int64_t most) {
    const size_t room = static_cast<size_t>((most + CHUNK - 1) / CHUNK * CHUNK);
    for (std::vector<T>* row : {&x1, &y1, &x2, &y2, &area}) row->assign(room, std::numeric_limits<T>::quiet_NaN());
  }

  void add(const T* box, T its_area) {
    x1[count] = box[0], y1[count] = box[1], x2[count] = box[2], y2[count] = box[3], area[count] = its_area;
    ++count;
  }

  // Whether one of the CHUNK boxes from `first` on overlaps `box` by more than the threshold.
  bool beaten(int64_t first, const T* box, T its_area, T threshold, T offset) const {
    const T *left = &x1[first], *top = &y1[first], *right = &x2[first], *bottom = &y2[first], *areas = &area[first];
    int hits = 0;
    for (int i = 0; i < CHUNK; ++i) {
      const T a = left[i] > box[0] ? left[i] : box[0], b = top[i] > box[1] ? top[i] : box[1];
      const T c = right[i] < box[2] ? right[i] : box[2], d = bottom[i] < box[3] ? bottom[i] : box[3];
      const T width = c - a + offset, height = d - b + offset;
      const T shared = (width > T(0) ? width : T(0)) * (height > T(0) ? height : T(0));
      hits |= shared / (areas[i] + its_area - shared) > threshold;
    }
    return hits;
  }
};

template <class T>
void sweep(const Tensor& boxes, double threshold, int64_t offset, Tensor& keep) {
  const int64_t count = boxes.size(0);
  const T* box = boxes.const_data_ptr<T>();
  bool* stays = static_cast<bool*>(keep.mutable_data_ptr());
  Kept<T> kept(count);
  const T limit = static_cast<T>(threshold), more = static_cast<T>(offset);
  for (int64_t j = 0; j < count; ++j, box += 4) {
    const T area = (box[2] - box[0] + more) * (box[3] - box[1] + more);
    bool beaten = false;
    for (int64_t first = 0; first < kept.count && !beaten; first += CHUNK)
      beaten = kept.beaten(first, box, area, limit, more);
    stays[j] = !beaten;
    if (!beaten) kept.add(box, area);
  }
}

Tensor nms_sorted(Tensor boxes, double iou_threshold, int64_t offset) {
  const ScalarType type = boxes.scalar_type();
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && (type == ScalarType::Float || type == ScalarType::Double),
                  "nms_sorted: boxes must be float32 or float64 with axes (N, 4)");
  const Tensor all = torch::stable::contiguous(boxes);
  Tensor keep = torch::stable::new_empty(all, {all.size(0)}, ScalarType::Bool);
  if (type == ScalarType::Float) sweep<float>(all, iou_threshold, offset, keep);
  else sweep<double>(all, iou_threshold, offset, keep);
  return keep;
}

}  // namespace
}  // namespace frozenmm

STABLE_TORCH_LIBRARY_IMPL(frozenmm, CPU, m) {
  m.impl("nms_sorted", TORCH_BOX(&frozenmm::nms_sorted));
}

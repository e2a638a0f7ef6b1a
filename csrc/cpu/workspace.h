// Memory that a thread works in. It is kept between calls, so that a kernel that runs thousands of times a second does not
// have the operating system clear the same pages again and again; a large piece is given back by the next small request.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace frozenmm::cpu {

class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { std::free(data_); }

  void* reserve(int64_t bytes) {
    const bool wasteful = size_ > kKeep && bytes <= kKeep;
    if (bytes > size_ || wasteful) {
      std::free(data_);
      size_ = (bytes + 63) / 64 * 64;
      data_ = std::aligned_alloc(64, static_cast<size_t>(size_));
      if (data_ == nullptr) size_ = 0;
    }
    return data_;
  }

 private:
  static constexpr int64_t kKeep = int64_t{16} << 20;
  void* data_ = nullptr;
  int64_t size_ = 0;
};

inline void* workspace(int64_t bytes) {
  static thread_local Workspace own;
  return own.reserve(bytes);
}

}  // namespace frozenmm::cpu

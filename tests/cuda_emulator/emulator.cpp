// The scheduler of the emulated device: fibres, barriers, operations of warps. See emulator.h.
#include "emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim(1), gridDim(1);

// Begin and end of the section that all `__shared__` variables lie in; the linker names them.
extern unsigned char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

namespace emulator {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr unsigned char kGarbage = 0xA5;  // as float -2.9e-16, as int -1515870811: seen in any sum or index
constexpr unsigned kWholeWarp = 0xffffffffu;

enum class Waits { nothing, warp, block, finished };

// Memory of a stack, with a page below that nobody may touch.
class Stack {
 public:
  Stack() : base_(static_cast<char*>(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    if (base_ == MAP_FAILED || mprotect(base_, 4096, PROT_NONE)) throw std::runtime_error("emulator: no memory for stacks");
  }
  ~Stack() { munmap(base_, kStackBytes); }
  Stack(const Stack&) = delete;
  char* base() const { return base_; }

 private:
  char* base_;
};

struct Fibre {
  ucontext_t context;
  Stack stack;
  uint3 thread{};
  Waits waits = Waits::nothing;
  const char* operation = nullptr;
  unsigned turn = 0;  // which of the two boards of its warp it writes on next
};

// A lane is at most one operation ahead of the others of its warp, so two boards do.
struct Warp {
  uint64_t board[2][kLanes];
};

std::vector<std::unique_ptr<Fibre>> fibres;
std::vector<Warp> warps;
ucontext_t scheduler;
Fibre* current = nullptr;
const std::function<void()>* body = nullptr;
unsigned char* shared_memory = nullptr;
cudaError_t last_error = cudaSuccess;
std::map<const void*, size_t> allowed;
std::mt19937 dice(20240229);

unsigned linear(const Fibre& fibre) {
  return fibre.thread.x + blockDim.x * (fibre.thread.y + blockDim.y * fibre.thread.z);
}

// The sanitizer keeps track of stacks, so it is told of every change. `from` null: the fibre does not come back.
void switch_to(ucontext_t* from, ucontext_t* to, const void* stack, size_t bytes, bool comes_back) {
#if defined(__SANITIZE_ADDRESS__)
  void* kept = nullptr;
  __sanitizer_start_switch_fiber(comes_back ? &kept : nullptr, stack, bytes);
  swapcontext(from, to);
  __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
#else
  (void)stack, (void)bytes, (void)comes_back;
  swapcontext(from, to);
#endif
}

const void* scheduler_stack = nullptr;
size_t scheduler_bytes = 0;

void leave(Waits waits) {
  current->waits = waits;
  switch_to(&current->context, &scheduler, scheduler_stack, scheduler_bytes, waits != Waits::finished);
}

void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
  (*body)();
  leave(Waits::finished);
}

void resume(Fibre& fibre) {
  current = &fibre;
  threadIdx = fibre.thread;
  switch_to(&scheduler, &fibre.context, fibre.stack.base(), kStackBytes, true);
}

unsigned count(unsigned first, unsigned end, Waits waits) {
  unsigned found = 0;
  for (unsigned i = first; i < end; ++i) found += fibres[i]->waits == waits;
  return found;
}

// Runs a warp until each lane has finished or waits for the block; whether a lane ran at all.
bool run_warp(unsigned first, unsigned end) {
  std::vector<unsigned> order(end - first);
  std::iota(order.begin(), order.end(), first);
  bool any = false;
  for (;;) {
    std::shuffle(order.begin(), order.end(), dice);
    for (unsigned i : order) {
      if (fibres[i]->waits != Waits::nothing) continue;
      resume(*fibres[i]);
      any = true;
    }
    const unsigned here = count(first, end, Waits::warp);
    if (here == 0) return any;
    const char* operation = nullptr;
    bool same = true;
    for (unsigned i = first; i < end; ++i) {
      if (fibres[i]->waits != Waits::warp) continue;
      same = same && (operation == nullptr || operation == fibres[i]->operation);
      operation = fibres[i]->operation;
    }
    if (here != kLanes || !same)
      throw std::runtime_error("emulator: " + std::string(operation) + " is reached by " + std::to_string(here) +
                               " of 32 lanes; " + std::to_string(count(first, end, Waits::finished)) + " have finished, " +
                               std::to_string(count(first, end, Waits::block)) + " wait at a barrier" +
                               (same ? "" : ", and they take part in different operations"));
    for (unsigned i = first; i < end; ++i) fibres[i]->waits = Waits::nothing;
  }
}

void start(Fibre& fibre, unsigned index) {
  fibre.waits = Waits::nothing, fibre.turn = 0;
  fibre.thread = {index % blockDim.x, index / blockDim.x % blockDim.y, index / (blockDim.x * blockDim.y)};
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.base();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, enter, 0);
}

__attribute__((no_sanitize_address)) void fill_with_garbage(unsigned char* from, const unsigned char* end) {
  for (; from < end; ++from) *from = kGarbage;
}

void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) start(*fibres[i], i);
  std::vector<unsigned> order((threads + kLanes - 1) / kLanes);
  std::iota(order.begin(), order.end(), 0u);
  while (count(0, threads, Waits::finished) < threads) {
    std::shuffle(order.begin(), order.end(), dice);
    for (unsigned w : order) run_warp(w * kLanes, std::min(threads, (w + 1) * kLanes));
    // all that have not finished wait at a barrier now
    const unsigned finished = count(0, threads, Waits::finished);
    if (finished > 0 && finished < threads)
      throw std::runtime_error("emulator: a barrier is reached by " + std::to_string(threads - finished) + " of " +
                               std::to_string(threads) + " threads, the others have finished");
    if (finished == 0)
      for (unsigned i = 0; i < threads; ++i) fibres[i]->waits = Waits::nothing;
  }
}

bool within_limits(const void* kernel, dim3 blocks, unsigned threads, size_t shared_bytes) {
  const auto found = allowed.find(kernel);
  const size_t most = found == allowed.end() ? kGrantedShared : std::max(kGrantedShared, found->second);
  return threads >= 1 && threads <= 1024 && blocks.x >= 1 && blocks.x <= 0x7fffffffu && blocks.y >= 1 &&
         blocks.y <= 65535 && blocks.z >= 1 && blocks.z <= 65535 && shared_bytes <= most;
}

}  // namespace

void wait_for_block() { leave(Waits::block); }

unsigned lane() { return linear(*current) % kLanes; }

const uint64_t* exchange(const char* operation, unsigned mask, uint64_t mine) {
  if (mask != kWholeWarp) {
    std::fprintf(stderr, "emulator: %s with a mask of less than a warp is not modelled\n", operation);
    std::abort();
  }
  uint64_t* board = warps[linear(*current) / kLanes].board[current->turn];
  current->turn ^= 1;
  current->operation = operation;
  board[lane()] = mine;
  leave(Waits::warp);
  return board;
}

unsigned char* dynamic_shared() { return shared_memory; }

cudaError_t allow_shared(const void* kernel, size_t bytes) {
  if (bytes > kMostShared) return last_error = cudaErrorInvalidConfiguration;
  allowed[kernel] = bytes;
  return cudaSuccess;
}

void launch(const void* kernel, dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& run) {
  if (!within_limits(kernel, blocks, threads, shared_bytes)) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  while (fibres.size() < threads) fibres.push_back(std::make_unique<Fibre>());
  warps.resize((threads + kLanes - 1) / kLanes);
  blockDim = dim3(threads), gridDim = blocks, body = &run;
  // its exact size, so that the sanitizer sees a step beyond
  const std::unique_ptr<unsigned char, decltype(&std::free)> dynamic(
      static_cast<unsigned char*>(std::malloc(std::max<size_t>(shared_bytes, 1))), &std::free);
  shared_memory = dynamic.get();
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) {
        blockIdx = {x, y, z};
        fill_with_garbage(shared_memory, shared_memory + shared_bytes);
        fill_with_garbage(__start_emulated_shared, __stop_emulated_shared);
        run_block(threads);
      }
    }
  }
}

}  // namespace emulator

cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

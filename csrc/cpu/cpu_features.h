// Which instruction set the kernels use: the widest that the CPU and the operating system offer, unless the environment
// variable FROZENMM_CPU=base|avx2|avx512 asks for less.
#pragma once

#include <cstdlib>
#include <cstring>

namespace frozenmm::cpu {

enum class Level { base, avx2, avx512 };

inline Level detect() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Level::avx512 : avx2 ? Level::avx2 : Level::base;
#else
  return Level::base;
#endif
}

inline Level level() {
  static const Level chosen = [] {
    const Level found = detect();
    const char* wanted = std::getenv("FROZENMM_CPU");
    if (wanted == nullptr) return found;
    if (std::strcmp(wanted, "base") == 0) return Level::base;
    if (std::strcmp(wanted, "avx2") == 0 && found != Level::base) return Level::avx2;
    return found;
  }();
  return chosen;
}

}  // namespace frozenmm::cpu

// Which instruction set the kernels use: the widest that the CPU and the operating system offer, unless the environment
// variable FROZENMM_CPU=base|avx2|avx512|amx asks for less. It is read at every call, so that one process can compare them.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <string>

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

// The value of FROZENMM_CPU, empty when it is not set.
inline std::string wanted() {
  const char* value = std::getenv("FROZENMM_CPU");
  const std::string name = value ? value : "";
  STD_TORCH_CHECK(name.empty() || name == "base" || name == "avx2" || name == "avx512" || name == "amx",
                  "FROZENMM_CPU must be base, avx2, avx512 or amx, got ", name);
  return name;
}

inline Level level() {
  static const Level found = detect();
  const std::string name = wanted();
  if (name == "base") return Level::base;
  if (name == "avx2" && found == Level::avx512) return Level::avx2;
  return found;
}

}  // namespace frozenmm::cpu

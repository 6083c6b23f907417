#pragma once

#include <cstddef>
#include <cstdint>

namespace fl::kernels {

/// The kernels of one instruction set; members are named and described in kernels.h.
struct KernelTable {
  const char* name;
  void (*axpy)(float, const float*, float*, std::size_t);
  void (*scale)(float, float*, std::size_t);
  void (*subtract)(const float*, const float*, float*, std::size_t);
  double (*squared_norm)(const float*, std::size_t);
  double (*squared_distance)(const float*, const float*, std::size_t);
  bool (*all_finite)(const float*, std::size_t);
  void (*sgd)(float, float, float*, const float*, std::size_t);
  void (*sgd_momentum)(float, float, float, float, bool, float*, const float*, float*, std::size_t);
  bool (*exact_add)(const float*, double, float, std::uint64_t*, std::size_t);
  std::uint32_t (*exact_add_four)(const float* const*, const double*, float, std::uint64_t*, std::size_t);
  void (*exact_subtract)(const float*, double, std::uint64_t*, std::size_t);
  void (*exact_mean)(const std::uint64_t*, double, float*, std::size_t);
  void (*to_fp16)(const float*, std::uint16_t*, std::size_t);
  void (*from_fp16)(const std::uint16_t*, float*, std::size_t);
};

const KernelTable& portable_kernels();
#if defined(__x86_64__)
/// REQUIRES: the CPU has AVX2 and FMA.
const KernelTable& avx2_kernels();
/// REQUIRES: the CPU has AVX-512 F, BW, DQ and VL.
const KernelTable& avx512_kernels();
#endif

}  // namespace fl::kernels

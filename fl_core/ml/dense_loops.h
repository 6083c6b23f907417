#pragma once

// The two hot loops of a small dense network. dense_loops_portable.cpp and dense_loops_avx2.cpp build them, the second
// with AVX2; both give the same bits: eight fixed lanes, products and sums rounded apart, one order of addition. Plain
// pointers on purpose: a std:: template instantiated with AVX2 flags could be the one that the linker keeps.

#include <cstddef>

namespace fl {

struct DenseLoops {
  /// out[r · outs + o] = Σ_k x[r · n + k] · w[o · n + k] + (bias ? bias[o] : 0). A row's bits do not depend on `rows`.
  void (*dots)(const float* x, std::size_t rows, const float* w, std::size_t outs, std::size_t n, const float* bias, float* out);
  /// out[i · n + k] = Σ_t c[i · row_stride + t · term_stride] · x[t · n + k], in the order of t.
  void (*combine)(const float* c, std::size_t row_stride, std::size_t term_stride, std::size_t rows, std::size_t terms, const float* x,
                  std::size_t n, float* out);
};
extern const DenseLoops kPortableDenseLoops;
#if defined(__x86_64__)
extern const DenseLoops kAvx2DenseLoops;
#endif
/// The best ones for this CPU.
const DenseLoops& dense_loops();
/// For tests: the portable ones from now on (or the best again).
void use_portable_dense_loops(bool portable);

namespace {

// The short loops below must disappear before arrays of vectors become registers; g++ 12 needs to be told.
#if defined(__GNUC__) && !defined(__clang__)
#define FL_UNROLL _Pragma("GCC unroll 8")
#else
#define FL_UNROLL
#endif

constexpr std::size_t kLanes = 8;
#if defined(__AVX2__)
constexpr std::size_t kWidth = 8;
#else
constexpr std::size_t kWidth = 4;
#endif

/// Floats that are computed with at once. By reference everywhere: passing them by value has another ABI with AVX.
using Vector = float __attribute__((vector_size(kWidth * sizeof(float))));

inline void load(Vector& vector, const float* from) { __builtin_memcpy(&vector, from, sizeof vector); }
inline void store(const Vector& vector, float* to) { __builtin_memcpy(to, &vector, sizeof vector); }

inline float sum_of(const float* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// kRows × kOuts dot products at once, so that each float that is loaded is used several times.
template <std::size_t kRows, std::size_t kOuts>
inline void dots_block(const float* x, const float* w, std::size_t n, const float* bias, float* out, std::size_t outs) {
  constexpr std::size_t kParts = kLanes / kWidth;
  Vector sums[kRows][kOuts][kParts] = {};
  const std::size_t whole = n - n % kLanes;
  for (std::size_t k = 0; k < whole; k += kLanes) {
    FL_UNROLL for (std::size_t part = 0; part < kParts; ++part) {
      Vector from_w[kOuts];
      FL_UNROLL for (std::size_t o = 0; o < kOuts; ++o) load(from_w[o], w + o * n + k + part * kWidth);
      FL_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
        Vector from_x;
        load(from_x, x + r * n + k + part * kWidth);
        FL_UNROLL for (std::size_t o = 0; o < kOuts; ++o) sums[r][o][part] += from_x * from_w[o];
      }
    }
  }
  // First to memory, in loops that unroll: whatever indexes the sums otherwise would keep them out of registers.
  float lanes[kRows][kOuts][kLanes];
  FL_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
    FL_UNROLL for (std::size_t o = 0; o < kOuts; ++o) {
      FL_UNROLL for (std::size_t part = 0; part < kParts; ++part) store(sums[r][o][part], lanes[r][o] + part * kWidth);
    }
  }
  FL_UNROLL for (std::size_t r = 0; r < kRows; ++r) {
    FL_UNROLL for (std::size_t o = 0; o < kOuts; ++o) {
      for (std::size_t k = whole; k < n; ++k) lanes[r][o][k - whole] += x[r * n + k] * w[o * n + k];
      out[r * outs + o] = sum_of(lanes[r][o]) + (bias != nullptr ? bias[o] : 0.0F);
    }
  }
}

template <std::size_t kRows>
inline void dots_rows(const float* x, const float* w, std::size_t outs, std::size_t n, const float* bias, float* out) {
  std::size_t o = 0;
  const auto bias_at = [&] { return bias != nullptr ? bias + o : nullptr; };
  for (; o + 4 <= outs; o += 4) dots_block<kRows, 4>(x, w + o * n, n, bias_at(), out + o, outs);
  for (; o + 2 <= outs; o += 2) dots_block<kRows, 2>(x, w + o * n, n, bias_at(), out + o, outs);
  if (o < outs) dots_block<kRows, 1>(x, w + o * n, n, bias_at(), out + o, outs);
}

void dots_loop(const float* x, std::size_t rows, const float* w, std::size_t outs, std::size_t n, const float* bias, float* out) {
  std::size_t r = 0;
  for (; r + 2 <= rows; r += 2) dots_rows<2>(x + r * n, w, outs, n, bias, out + r * outs);
  if (r < rows) dots_rows<1>(x + r * n, w, outs, n, bias, out + r * outs);
}

/// kRows rows of kVectors vectors each.
template <std::size_t kRows, std::size_t kVectors>
inline void combine_block(const float* c, std::size_t row_stride, std::size_t term_stride, std::size_t terms, const float* x, std::size_t n,
                          float* out) {
  Vector sums[kRows][kVectors] = {};
  for (std::size_t t = 0; t < terms; ++t) {
    Vector from_x[kVectors];
    FL_UNROLL for (std::size_t v = 0; v < kVectors; ++v) load(from_x[v], x + t * n + v * kWidth);
    FL_UNROLL for (std::size_t i = 0; i < kRows; ++i) {
      const float factor = c[i * row_stride + t * term_stride];
      FL_UNROLL for (std::size_t v = 0; v < kVectors; ++v) sums[i][v] += factor * from_x[v];
    }
  }
  FL_UNROLL for (std::size_t i = 0; i < kRows; ++i) {
    FL_UNROLL for (std::size_t v = 0; v < kVectors; ++v) store(sums[i][v], out + i * n + v * kWidth);
  }
}

template <std::size_t kRows>
inline void combine_rows(const float* c, std::size_t row_stride, std::size_t term_stride, std::size_t terms, const float* x, std::size_t n,
                         float* out) {
  std::size_t k = 0;
  for (; k + 2 * kWidth <= n; k += 2 * kWidth) combine_block<kRows, 2>(c, row_stride, term_stride, terms, x + k, n, out + k);
  for (; k + kWidth <= n; k += kWidth) combine_block<kRows, 1>(c, row_stride, term_stride, terms, x + k, n, out + k);
  for (; k < n; ++k) {
    FL_UNROLL for (std::size_t i = 0; i < kRows; ++i) {
      float sum = 0;
      for (std::size_t t = 0; t < terms; ++t) sum += c[i * row_stride + t * term_stride] * x[t * n + k];
      out[i * n + k] = sum;
    }
  }
}

void combine_loop(const float* c, std::size_t row_stride, std::size_t term_stride, std::size_t rows, std::size_t terms, const float* x,
                  std::size_t n, float* out) {
  std::size_t i = 0;
  for (; i + 4 <= rows; i += 4) combine_rows<4>(c + i * row_stride, row_stride, term_stride, terms, x, n, out + i * n);
  for (; i + 2 <= rows; i += 2) combine_rows<2>(c + i * row_stride, row_stride, term_stride, terms, x, n, out + i * n);
  if (i < rows) combine_rows<1>(c + i * row_stride, row_stride, term_stride, terms, x, n, out + i * n);
}

#undef FL_UNROLL

constexpr DenseLoops kDenseLoops = {dots_loop, combine_loop};

}  // namespace
}  // namespace fl

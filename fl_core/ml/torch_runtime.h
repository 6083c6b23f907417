#pragma once

#include <string>

namespace fl {

/// Gives the calling thread one LibTorch thread and the process one BLAS thread. Every thread that trains or evaluates
/// calls it once before its first model: results then do not depend on the number of cores, and workers do not fight over
/// them (DESIGN §11). LibTorch's setting is one a thread, BLAS's one a process. LibTorch's inter-op pool is left alone:
/// eager operators never use it. So is its "deterministic" switch: with one thread every CPU operator already is.
void limit_threads_of_this_worker();
/// The same with `threads` threads, for a device that trains one model at a time. With more than one, sums inside an operator may
/// be taken in another order, so the last bits of a result may depend on the number.
void use_threads_in_this_worker(int threads);

/// The threads that one LibTorch operator may use when called from this thread.
int intra_op_threads();

/// The version of the LibTorch that this program was built with, e.g. "1.13.1".
std::string torch_version();

/// What LibTorch can do with GPUs, for `fl doctor` and errors.
struct GpuSupport {
  bool cuda = false;  ///< LibTorch was built with CUDA
  int gpus = 0;       ///< that CUDA finds here
  std::string text;   ///< in words
};
/// Loads nothing onto a GPU.
GpuSupport gpu_support();

/// How fast LibTorch multiplies matrices, for `fl doctor`: without an optimised BLAS training is 3-45 times slower.
struct BlasSpeed {
  double gflops = 0;    ///< best of several 512×512×512 float products on one thread
  std::string library;  ///< what answers sgemm, e.g. "OpenBLAS 0.3.21 …", or the file of an unknown one
};

/// Takes about 0.2 s. Limits the threads of the caller as limit_threads_of_this_worker() does.
BlasSpeed measure_blas();

}  // namespace fl

#pragma once

#include <cstddef>
#include <cstdint>

/// Every count that comes from outside is checked against one of these before anything is allocated.
namespace fl::limits {

inline constexpr std::size_t kHeaderBytes = 64 * 1024;               ///< CBOR header of a message
inline constexpr std::uint64_t kSafetensorsHeaderBytes = 16U << 20U;  ///< JSON header of a safetensors file
inline constexpr std::uint64_t kSafetensorsBytes = 64ULL << 30U;      ///< whole safetensors file
inline constexpr std::uint64_t kTensorRank = 8;
inline constexpr std::uint64_t kReasonBytes = 256;                    ///< free text a peer may send
inline constexpr std::uint64_t kNameBytes = 256;                      ///< name of a tensor or a component
inline constexpr std::int64_t kClientExamples = 1LL << 40U;           ///< examples that one client may report a round

}  // namespace fl::limits

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


inline constexpr std::size_t kChunkBytes = 1U << 20U;                ///< body of one frame
inline constexpr std::size_t kInlineBytes = 64 * 1024;               ///< a longer body of a message travels as a blob
inline constexpr std::uint64_t kBlobBytes = (1ULL << 63U) - 1;       ///< a blob's length; what a peer may send is bounded by the model
inline constexpr std::uint64_t kPlanBytes = kChunkBytes;             ///< the plan in a welcome
inline constexpr std::uint32_t kRetrySeconds = 7 * 24 * 3600;          ///< longest wait a server may ask for

}  // namespace fl::limits

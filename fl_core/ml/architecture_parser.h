#pragma once

#include <initializer_list>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fl_core/ml/architecture.h"

/// The inside of parse_architecture: architecture.cpp walks the list of stages, architecture_stages.cpp knows each kind.
namespace fl::architecture {

using Shape = std::vector<std::int64_t>;

inline constexpr std::int64_t kExtent = 1 << 24;                     ///< channels, features, vocabulary
inline constexpr std::int64_t kKernel = 1024;                        ///< kernel, stride, padding
inline constexpr std::int64_t kElements = std::int64_t{1} << 31;     ///< floats in one tensor
inline constexpr std::size_t kStages = 4096;                         ///< stages in one list
inline constexpr std::size_t kFirstStatistic = std::size_t{1} << 40; ///< marks slot indices that are still among the statistics

/// "[64, 7, 7]"
std::string text(const Shape& shape);
/// Products and sums stop at the largest int64: a cost that large is only ever shown.
std::int64_t product(std::initializer_list<std::int64_t> factors);
std::int64_t product(const Shape& shape);
std::int64_t sum(std::int64_t a, std::int64_t b);

/// Where a stage stands: its options, their JSON path, the prefix of its slots, and what reaches it.
struct Site {
  std::string kind;
  const nlohmann::json& options;
  std::string path;
  std::string slot;
  const Shape& input;
};

/// Throws the ConfigError of a stage that cannot take its input.
[[noreturn]] void unfit(const Site& site, const std::string& need, const std::string& fix);

/// Walks the stages, passing shapes on and collecting slots.
class Parser {
 public:
  explicit Parser(const ExampleShape& shape) : example_(shape), tokens_(shape.vocabulary > 0) {
    keep(product(shape.input), 4);
  }

  std::vector<StageSpec> list(const nlohmann::json& stages, const std::string& path, const std::string& slot, Shape input);
  void finish(Architecture& architecture);

 private:
  StageSpec stage(const Site& site);
  StageSpec conv(const Site& site);
  StageSpec depthwise_conv(const Site& site);
  StageSpec linear(const Site& site);
  StageSpec activation(const Site& site);
  StageSpec pool(const Site& site);
  StageSpec global_avg_pool(const Site& site);
  StageSpec flatten(const Site& site);
  StageSpec dropout(const Site& site);
  StageSpec group_norm(const Site& site);
  StageSpec batch_norm(const Site& site);
  StageSpec embedding(const Site& site);
  StageSpec lstm(const Site& site);
  StageSpec residual(const Site& site);

  using Handler = StageSpec (Parser::*)(const Site&);
  static const std::map<std::string, Handler>& handlers();

  StageSpec convolution(const Site& site, StageSpec::Conv conv);
  void weight(StageSpec& stage, const Site& site, const char* name, Shape shape, Initialisation initial);
  void statistic(StageSpec& stage, const Site& site, const char* name, Shape shape, Initialisation initial);
  void check_size(const Site& site, const std::string& what, const Shape& shape) const;
  /// Counts memory that backward keeps for one example.
  void keep(std::int64_t elements, std::int64_t bytes_each) {
    activation_bytes_ = sum(activation_bytes_, product({elements, bytes_each}));
  }

  const ExampleShape& example_;
  bool tokens_;  ///< what flows now are token ids, not numbers
  std::vector<Slot> weights_, statistics_;
  std::vector<Initialisation> initial_weights_, initial_statistics_;
  std::int64_t activation_bytes_ = 0;
};

}  // namespace fl::architecture

#include <algorithm>
#include <array>

#include "simulations/cli/report_bars.h"
#include "simulations/cli/report_view.h"

// The section on how examples were dealt out to clients, from partition.json.
namespace fl::report {
namespace {

/// Empty when it is not what partition.json should hold: as many rows of numbers as shown clients, all of one length.
HeatMap read_histogram(const nlohmann::json& partition) {
  HeatMap map;
  const nlohmann::json* clients = find(partition, "shown");
  const nlohmann::json* rows = find(partition, "histogram");
  if (clients == nullptr || rows == nullptr || !clients->is_array() || !rows->is_array() ||
      clients->size() != rows->size())
    return {};
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const nlohmann::json& row = (*rows)[i];
    if (!row.is_array() || row.size() != (*rows)[0].size() || !(*clients)[i].is_number_integer()) return {};
    if (!std::all_of(row.begin(), row.end(), [](const nlohmann::json& value) { return value.is_number(); })) return {};
    map.clients.push_back((*clients)[i].get<std::uint64_t>());
    map.counts.push_back(row.get<std::vector<double>>());
  }
  return map;
}

std::string shard_sizes(const nlohmann::json& partition, std::size_t shown) {
  const auto clients = number_at(partition, "clients");
  std::string out = clients ? count(*clients) + (*clients == 1 ? " client" : " clients") : "";
  if (clients && *clients > static_cast<double>(shown) && shown > 0)
    out += ", " + count(static_cast<double>(shown)) + " of them shown";
  constexpr std::array<std::pair<const char*, const char*>, 5> kSizes = {{{"sizes.min", "smallest"},
                                                                          {"sizes.p10", "10th percentile"},
                                                                          {"sizes.median", "median"},
                                                                          {"sizes.p90", "90th percentile"},
                                                                          {"sizes.max", "largest"}}};
  const auto smallest = number_at(partition, "sizes.min"), largest = number_at(partition, "sizes.max");
  if (smallest && smallest == largest)
    return out + (out.empty() ? "" : ". ") + "Each has " + count(*smallest) + " examples.";
  std::string sizes;
  for (const auto& [path, name] : kSizes) {
    if (const auto size = number_at(partition, path))
      sizes += (sizes.empty() ? "" : ", ") + std::string(name) + " " + count(*size);
  }
  if (!sizes.empty()) out += std::string(out.empty() ? "" : ". ") + "Examples a client: " + sizes;
  return out.empty() ? "" : out + ".";
}

std::string table_of(const HeatMap& map, const std::string& summary) {
  std::vector<std::string> header = {"client"};
  for (std::size_t label = 0; label < map.counts[0].size(); ++label) header.push_back(std::to_string(label));
  header.push_back("examples");
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < map.counts.size(); ++i) {
    rows.push_back({std::to_string(map.clients[i])});
    double sum = 0;
    for (const double value : map.counts[i]) {
      rows.back().push_back(raw(value));
      sum += value;
    }
    rows.back().push_back(raw(sum));
  }
  return details_table(summary, header, rows);
}

}  // namespace

std::string partition_section(const std::vector<View>& views) {
  // Runs of one study mostly share their partition: each is drawn once.
  std::vector<std::pair<const nlohmann::json*, std::string>> partitions;
  for (const View& view : views) {
    if (!view.data->partition) continue;
    const nlohmann::json* partition = &*view.data->partition;
    const auto known = std::find_if(partitions.begin(), partitions.end(),
                                    [&](const auto& other) { return *other.first == *partition; });
    if (known == partitions.end())
      partitions.emplace_back(partition, view.label);
    else
      known->second += ", " + view.label;
  }
  std::string figures, tables;
  for (std::size_t i = 0; i < partitions.size(); ++i) {
    HeatMap map = read_histogram(*partitions[i].first);
    const std::string suffix = views.size() == 1 ? "" : ": " + partitions[i].second;
    map.id = "labels-" + std::to_string(i + 1);
    map.title = "Examples of each class at each client" + suffix;
    map.note = shard_sizes(*partitions[i].first, map.clients.size());
    const std::string figure = render(map);
    if (!figure.empty()) tables += table_of(map, "Labels of the clients as a table" + suffix);
    figures += !figure.empty() || map.note.empty() ? figure : "<p>" + map.note + "</p>\n";
  }
  return section("partition", "Partition", grid(figures) + tables);
}

}  // namespace fl::report

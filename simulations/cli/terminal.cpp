#include "simulations/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace fl::cli {
namespace {

std::size_t terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

/// Columns of a UTF-8 text whose characters are one column wide.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) != 0) {}
Progress::~Progress() { finish(); }

void Progress::say(const std::string& line) {
  if (quiet_) return;
  finish();
  std::fprintf(stderr, "%s\n", line.c_str());
}

void Progress::show(double done, double total, const std::string& text, bool lasting) {
  if (quiet_ || (!terminal_ && !lasting)) return;
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", text.c_str());
    return;
  }
  static constexpr std::size_t kCells = 20;
  const double share = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
  const auto full = static_cast<std::size_t>(share * kCells);
  std::string line = "[";
  for (std::size_t i = 0; i < kCells; ++i) line += i < full ? "█" : "·";
  line += "] " + text;
  while (width(line) >= terminal_columns() && !line.empty()) line.pop_back();
  std::fprintf(stderr, "\r%s\033[K", line.c_str());
  std::fflush(stderr);
  line_open_ = true;
}

void Progress::finish() {
  if (line_open_) std::fputc('\n', stderr);
  line_open_ = false;
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    if (widths.size() < row.size()) widths.resize(row.size());
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < rows[r].size(); ++i) {
      text += rows[r][i];
      if (i + 1 < rows[r].size()) text += std::string(widths[i] - width(rows[r][i]) + 2, ' ');
    }
    text += '\n';
    if (r != 0) continue;
    for (std::size_t i = 0; i < widths.size(); ++i) text += std::string(widths[i], '-') + (i + 1 < widths.size() ? "  " : "\n");
  }
  return text;
}

}  // namespace fl::cli

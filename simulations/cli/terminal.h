#pragma once

#include <string>
#include <vector>

#include "fl_core/base/human.h"

namespace fl::cli {

/// Progress on standard error: one line that is rewritten on a terminal, occasional lines elsewhere.
class Progress {
 public:
  /// `quiet` shows nothing.
  explicit Progress(bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// A lasting line.
  void say(const std::string& line);
  /// The moving line: a bar of done/total and a text. Elsewhere than on a terminal it is printed when `lasting`.
  void show(double done, double total, const std::string& text, bool lasting);
  /// Ends the moving line.
  void finish();

 private:
  bool quiet_;
  bool terminal_;
  bool line_open_ = false;
};

/// A table with aligned columns, first row as its head.
std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace fl::cli

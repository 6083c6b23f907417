#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace fl {

/// Who may read a file that we write. `owner`: mode 0600 from the first instant on, for private keys.
enum class FileAccess : std::uint8_t { everyone, owner };

/// Writes `bytes` so that after a crash at any instant the path holds the old contents or the new, never a part:
/// temporary file in the same folder, fsync, rename, fsync of the folder. Throws IoError naming the path and the cause.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                           FileAccess access = FileAccess::everyone);
void write_file_atomically(const std::filesystem::path& path, const std::string& text,
                           FileAccess access = FileAccess::everyone);

/// Reads a whole file of at most `limit_bytes`. Throws IoError naming the path and the cause.
std::vector<std::byte> read_file(const std::filesystem::path& path, std::uint64_t limit_bytes);
std::string read_text_file(const std::filesystem::path& path, std::uint64_t limit_bytes);

/// Throws the IoError of a write that the system refused: "cannot DOING PATH: cause", with what to do about it.
[[noreturn]] void fail_writing(const std::string& doing, const std::filesystem::path& path, int error);

/// Creates a folder and its parents. Returns the topmost one that was not there before; empty when all were. Throws IoError.
std::filesystem::path make_folder(const std::filesystem::path& path);
/// Undoes what make_folder() did: removes `path` and its parents up to `topmost`, as far as they are empty. Does nothing without `topmost`.
void remove_empty_folders(const std::filesystem::path& path, const std::filesystem::path& topmost);

}  // namespace fl

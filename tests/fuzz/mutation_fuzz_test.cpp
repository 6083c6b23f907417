// Seeded mutations of valid inputs against every decoder of outside bytes: nothing but ProtocolError or ConfigError may
// come out. The runs are short; the sanitizer presets make them see more.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/codec/codec.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/wire/message.h"
#include "fl_core/wire/tensors.h"

namespace fl {
namespace {

using nlohmann::json;
using ByteString = std::vector<std::byte>;

ByteString bytes_of(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

/// One to eight edits: flipped bits, bytes that parsers care about, removed, doubled and inserted pieces.
ByteString mutated(ByteString bytes, Rng& rng) {
  static constexpr unsigned char kTelling[] = {0x00, 0x7f, 0x80, 0xff, 0x5f, 0x9f, 0xa0, 0xbf, 0xfb, 0x1b, '"', '{', '}', '[', ']', '\\', '9', '-', 'e'};
  for (std::uint64_t edits = 1 + rng.below(8); edits > 0; --edits) {
    const std::size_t at = rng.below(bytes.size() + 1);
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const auto piece = [&] { return static_cast<std::ptrdiff_t>(rng.below(std::min<std::size_t>(bytes.size() - at, 16) + 1)); };
    switch (rng.below(6)) {
      case 0: if (at < bytes.size()) bytes[at] ^= static_cast<std::byte>(1U << rng.below(8)); break;
      case 1: if (at < bytes.size()) bytes[at] = static_cast<std::byte>(kTelling[rng.below(sizeof kTelling)]); break;
      case 2: bytes.erase(place, place + piece()); break;
      case 3: {
        const ByteString copy(place, place + piece());
        bytes.insert(place, copy.begin(), copy.end());
        break;
      }
      case 4: bytes.insert(place, rng.below(9), static_cast<std::byte>(rng.below(256))); break;
      default: bytes.resize(at); break;
    }
  }
  return bytes;
}

/// Feeds `runs` mutations of each seed to `decode`. Returns how many it accepted, so that a test can see that mutations
/// reach beyond the first check.
template <class Decode>
int fuzz(const std::vector<ByteString>& seeds, int runs, Decode decode) {
  int accepted = 0;
  for (std::size_t s = 0; s < seeds.size(); ++s) {
    EXPECT_NO_THROW(decode(seeds[s])) << "a seed must be valid";
    Rng rng(20240601, Purpose::synthetic_data, 0, s);
    for (int i = 0; i < runs; ++i) {
      const ByteString input = mutated(seeds[s], rng);
      try {
        decode(input);
        ++accepted;
      } catch (const ProtocolError&) {
      } catch (const ConfigError&) {
      } catch (const std::exception& error) {
        ADD_FAILURE() << "seed " << s << ", mutation " << i << ": " << error.what();
        return accepted;
      }
    }
  }
  return accepted;
}

Layout small_layout() { return Layout({{"0.weight", {4, 3}}, {"0.bias", {4}}, {"1.mean", {2}, SlotKind::statistic}}); }

Message with_header(const Message& message, const ByteString& header) {
  return Message(message.type(), message.round(), SharedBuffer::copy_of(header), message.body());
}

UpdateHeader some_update() {
  UpdateHeader update;
  update.round = 70000;
  update.model_version = 300;
  update.fingerprint = 0x0123456789abcdefULL;
  update.weight = 600;
  update.steps = 60;
  update.metrics = {600, 500, 1LL << 40};
  update.codec = "identity";
  return update;
}

TEST(Fuzz, TaskHeader) {
  const Layout layout = small_layout();
  Task task;
  task.round = 12;
  task.fingerprint = layout.fingerprint();
  task.weights = SharedBuffer(Bytes(layout.size() * sizeof(float)));
  const Message good = encode_task(task);
  fuzz({bytes_of(good.header().span())}, 20000, [&](const ByteString& header) { parse_task(with_header(good, header), layout); });
}

TEST(Fuzz, UpdateHeader) {
  const Message good = encode_update(some_update(), SharedBuffer());
  const int accepted = fuzz({bytes_of(good.header().span())}, 20000, [&](const ByteString& header) {
    const UpdateHeader update = parse_update_header(with_header(good, header));
    // Whatever is accepted is in range and has one encoding only up to the order of its keys.
    ASSERT_GE(update.weight, 1U);
    ASSERT_LE(update.metrics.correct, update.metrics.examples);
    ASSERT_EQ(encode_update(update, SharedBuffer()).header().size(), header.size());
  });
  EXPECT_GT(accepted, 0);
}

TEST(Fuzz, SecureHeaders) {
  SecureHeader secure;
  secure.round = 70000;
  secure.model_version = 300;
  secure.fingerprint = 0x0123456789abcdefULL;
  secure.step = 3;
  for (const MessageType type : {MessageType::secure_step, MessageType::secure_answer}) {
    const Message good = encode_secure(type, secure, SharedBuffer());
    const int accepted = fuzz({bytes_of(good.header().span())}, 20000, [&](const ByteString& header) {
      const SecureHeader read = parse_secure_header(with_header(good, header));
      ASSERT_GE(read.step, type == MessageType::secure_step ? 2U : 1U);
      ASSERT_LE(read.step, kSecureSteps);
      ASSERT_EQ(encode_secure(type, read, SharedBuffer()).header().size(), header.size());
    });
    EXPECT_GT(accepted, 0);
  }
}

TEST(Fuzz, FailureHeader) {
  const Message good = encode_failure(3, "the trainer ran out of memory: 12 MB für 7 Bilder");
  const int accepted = fuzz({bytes_of(good.header().span())}, 20000, [&](const ByteString& header) {
    const std::string reason = parse_failure(with_header(good, header));
    ASSERT_TRUE(std::none_of(reason.begin(), reason.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; }))
        << "a control character got through";
    ASSERT_NO_THROW(json(reason).dump()) << "the reason is no UTF-8";
  });
  EXPECT_GT(accepted, 0);
}

TEST(Fuzz, Safetensors) {
  const Layout layout = small_layout();
  const std::vector<float> values(layout.size(), 1.0F);
  const ByteString model = bytes_of(write_safetensors(layout, values).span());
  const ByteString arrays = bytes_of(write_named_arrays({{"momentum", values}, {"empty", {}}}).span());
  const int accepted = fuzz({model, arrays}, 8000, [&](const ByteString& file) {
    const SafetensorsFile parsed = read_safetensors(file);
    std::size_t covered = 0;
    for (const TensorView& tensor : parsed.tensors) {
      // Every view lies inside the file, right after the one before.
      ASSERT_TRUE(tensor.bytes.empty() || (tensor.bytes.data() >= file.data() &&
                                           tensor.bytes.data() + tensor.bytes.size() <= file.data() + file.size()));
      covered += tensor.bytes.size();
    }
    ASSERT_LE(covered, file.size());
  });
  EXPECT_GT(accepted, 0);
  fuzz({model}, 8000, [&](const ByteString& file) {
    std::vector<float> out(layout.size());
    read_into(file, layout, out, "model.safetensors");
  });
}

TEST(Fuzz, Codecs) {
  Rng values_rng(5, Purpose::synthetic_data);
  std::vector<float> values(50);
  for (float& value : values) value = static_cast<float>(values_rng.normal());
  for (const std::string& name : codecs().names()) {
    const auto codec = codecs().create({{"name", name}}, "codec");
    Rng rng(5, Purpose::codec);
    fuzz({bytes_of(codec->encode(values, rng).span())}, 10000, [&](const ByteString& bytes) {
      std::vector<float> out(values.size());
      codec->decode(bytes, out);
    });
  }
}

TEST(Fuzz, Reports) {
  RoundReport report;
  report.round = 5;
  report.cohort = {{1, Outcome::accepted}, {2, Outcome::late}};
  report.training_loss = 0.25;
  report.accuracy = 0.5;
  report.class_accuracy = {0.5, 0.25};
  const std::string text = to_json(report).dump();
  const int accepted = fuzz({bytes_of(std::as_bytes(std::span(text)))}, 8000, [](const ByteString& bytes) {
    const json parsed = json::parse(reinterpret_cast<const char*>(bytes.data()),
                                    reinterpret_cast<const char*>(bytes.data()) + bytes.size(), nullptr, false);
    if (parsed.is_discarded()) throw ConfigError("not JSON");
    const RoundReport read = report_from_json(parsed);
    // What was read can be written and read again.
    ASSERT_EQ(to_json(report_from_json(to_json(read))), to_json(read));
  });
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace fl

#include <benchmark/benchmark.h>

#include <cstring>

#include "benchmarks/micro/best_rate.h"
#include "benchmarks/micro/random_floats.h"
#include "fl_core/params/layout.h"
#include "fl_core/wire/frame.h"
#include "fl_core/wire/message.h"
#include "fl_core/wire/tensors.h"

namespace fl {
namespace {

UpdateHeader some_update() {
  UpdateHeader update;
  update.round = 700;
  update.model_version = 699;
  update.fingerprint = 0x0123456789abcdefULL;
  update.weight = 600;
  update.steps = 60;
  update.metrics = {600, 500, 1LL << 40};
  update.codec = "identity";
  return update;
}

/// Header bytes made or read a second, and headers.
void count_headers(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
  state.SetItemsProcessed(state.iterations());
}

void WireEncodeUpdate(benchmark::State& state) {
  const UpdateHeader update = some_update();
  const SharedBuffer body;
  for (auto _ : state) benchmark::DoNotOptimize(encode_update(update, body));
  count_headers(state, encode_update(update, body).header().size());
}

void WireParseUpdate(benchmark::State& state) {
  const Message message = encode_update(some_update(), SharedBuffer());
  for (auto _ : state) benchmark::DoNotOptimize(parse_update_header(message));
  count_headers(state, message.header().size());
}

/// The 32 bytes before a header, written and read.
void WireFrameHead(benchmark::State& state) {
  const Frame frame = frame_of(encode_update(some_update(), SharedBuffer()), 12);
  for (auto _ : state) benchmark::DoNotOptimize(parse_frame_header(encode_frame_header(frame.head)));
  count_headers(state, kFrameHeaderBytes);
}

/// Two matrices and their biases, of about as many parameters.
Layout layout_of(std::int64_t parameters) {
  const std::int64_t rows = parameters / 20;
  return Layout({{"0.weight", {rows, 10}}, {"0.bias", {rows}}, {"2.weight", {8, rows}}, {"2.bias", {parameters - 19 * rows}}});
}

/// `of_copy` is the best rate over that of copying the values from one place to the other, both measured here.
template <class Run>
void beside_a_copy(benchmark::State& state, std::span<const float> values, Run run) {
  const double bytes = 4.0 * static_cast<double>(values.size());
  const double copy_rate = best_rate(bytes, [&] {
    Bytes copy = Bytes::uninitialised(4 * values.size());
    std::memcpy(copy.data(), values.data(), copy.size());
    benchmark::DoNotOptimize(copy.data());
    benchmark::ClobberMemory();
  });
  const double rate = best_rate(bytes, run);
  for (auto _ : state) run();
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
  state.SetItemsProcessed(static_cast<std::int64_t>(values.size()) * state.iterations());
  state.counters["of_copy"] = rate / copy_rate;
}

void SafetensorsWrite(benchmark::State& state) {
  const Layout layout = layout_of(state.range(0));
  const AlignedArray<float> values = random_floats(layout.size());
  beside_a_copy(state, values.span(), [&] {
    const Bytes file = write_safetensors(layout, values.span());
    benchmark::DoNotOptimize(file.data());
    benchmark::ClobberMemory();
  });
}

void SafetensorsRead(benchmark::State& state) {
  const Layout layout = layout_of(state.range(0));
  const AlignedArray<float> values = random_floats(layout.size());
  const Bytes file = write_safetensors(layout, values.span());
  AlignedArray<float> out(values.size());
  beside_a_copy(state, values.span(), [&] {
    read_into(file.span(), layout, out.span(), "model.safetensors");
    benchmark::ClobberMemory();
  });
}

BENCHMARK(WireEncodeUpdate);
BENCHMARK(WireParseUpdate);
BENCHMARK(WireFrameHead);
BENCHMARK(SafetensorsWrite)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(SafetensorsRead)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);

}  // namespace
}  // namespace fl

// The kernels of one instruction set (-DMGA_ISA=its name) against the portable ones, which define them: random
// layers and rows, what both write compared bit by bit, also where nothing should be written. Prints the first
// difference and ends with 1, or prints the number of comparisons.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "convolution/kernels.h"

namespace mga {
namespace MGA_ISA {
extern const ConvolutionKernels convolution_kernels;
}
namespace portable {
extern const ConvolutionKernels convolution_kernels;
}
}  // namespace mga

using namespace mga;

namespace {

const ConvolutionKernels& kGiven = MGA_ISA::convolution_kernels;
const ConvolutionKernels& kDefinition = portable::convolution_kernels;

std::mt19937 generator(20220);
int comparisons = 0;

int64_t any(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(generator); }
template <typename T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[any(0, int64_t(values.size()) - 1)];
}

enum class Numbers { usual, wild };  // wild: with some of kExponents, among them the smallest and largest, or any bits

constexpr int kExponents[] = {0, 1, 2, 30, 60, 64, 66, 71, 100, 127, 128, 145, 190, 253, 254, 255, -1};
std::vector<int> exponents;

void choose_exponents() {
  exponents.clear();
  for (int64_t i = any(1, 4); i > 0; --i) exponents.push_back(kExponents[any(0, int64_t(std::size(kExponents)) - 1)]);
}

float number(Numbers kind) {
  if (kind == Numbers::usual) return any(0, 9) == 0 ? 0.f : std::normal_distribution<float>()(generator);
  uint32_t bits = uint32_t(generator());
  const int exponent = exponents[any(0, int64_t(exponents.size()) - 1)];
  if (exponent >= 0) bits = (bits & 0x807fffff) | uint32_t(exponent) << 23;
  if (any(0, 3) == 0) bits &= 0xff800000;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<float> floats(int64_t count, Numbers kind) {
  std::vector<float> values(count);
  choose_exponents();
  for (float& value : values) value = number(kind);
  return values;
}

std::vector<uint32_t> pairs_of(int64_t count, Numbers kind) {
  std::vector<uint32_t> values(count);
  choose_exponents();
  for (uint32_t& value : values) {
    const float both[2] = {number(kind), number(kind)};
    uint32_t bits[2];
    std::memcpy(bits, both, sizeof bits);
    value = bits[0] >> 16 | (bits[1] & 0xffff0000);
  }
  return values;
}

// Results may differ in which NaN a NaN is; `near`: in their last place too.
bool same_bf16(uint32_t a, uint32_t b, bool near) {
  if ((a & 0x7fff) > 0x7f80 && (b & 0x7fff) > 0x7f80) return true;
  const auto order = [](uint32_t x) { return x & 0x8000 ? -int(x & 0x7fff) : int(x & 0x7fff); };
  return a == b || (near && std::abs(order(a) - order(b)) <= 1);
}
bool same(uint32_t a, uint32_t b, bool near) {
  return same_bf16(a & 0xffff, b & 0xffff, near) && same_bf16(a >> 16, b >> 16, near);
}
bool same(float a, float b, bool near) {
  if (std::isnan(a) && std::isnan(b)) return true;
  return std::memcmp(&a, &b, sizeof a) == 0 || (near && std::fabs(a - b) <= 0.02f * std::fabs(a) + 0.02f);
}
bool same(uint8_t a, uint8_t b, bool) { return a == b; }

template <typename T>
void compare(const std::string& what, const std::vector<T>& found, const std::vector<T>& expected, bool near = false) {
  ++comparisons;
  for (size_t i = 0; i < found.size(); ++i) {
    if (same(found[i], expected[i], near)) continue;
    std::printf("%s of %s: element %zu of %zu differs\n", what.c_str(), kGiven.name, i, found.size());
    std::exit(1);
  }
}

// Room for vectors that begins at a cache line, as planes have it where they are written around the caches.
struct Output {
  std::vector<uint32_t> memory;
  uint32_t* first;

  explicit Output(int64_t words) : memory(words + 32, 0x7fc1ffc1) {
    first = memory.data() + 16;
    while (reinterpret_cast<uintptr_t>(first) % 64 != 0) ++first;
  }
  std::vector<uint32_t> words(int64_t count) const { return {first - 1, first + count + 1}; }
};

// A layer with all that it points to.
struct Task {
  Layer layer{};
  int64_t scale = 1;  // of the output
  std::vector<uint32_t> weight, x, skip;
  std::vector<float> epilogue;
  std::vector<uint16_t> lanes;
  Row row{};
  int64_t out_words = 0;
  bool measured = false;

  std::string text(const char* what) const {
    return std::string(what) + " (size " + std::to_string(layer.size) + ", " + std::to_string(2 * layer.pairs) +
           " to " + std::to_string(layer.channels) + " channels, shuffle " + std::to_string(layer.shuffle) +
           ", finish " + std::to_string(int(layer.finish)) + ", width " + std::to_string(layer.width) + ")";
  }
};

void set_rows(Task& task, Numbers kind) {
  Layer& layer = task.layer;
  layer.width = any(1, 150);
  const int64_t vectors = (layer.width + 15) / 16, pitch = 16 * vectors + 2 * kMargin;
  task.x = pairs_of(layer.pairs * layer.size * pitch, kind);
  for (int64_t i = 0; i < layer.size; ++i) task.row.taps[i] = {task.x.data() + i * pitch + kMargin, layer.size * pitch};
  task.row.first = any(0, vectors - 1);
  task.row.last = any(task.row.first + 1, vectors);
  layer.out_vectors = (layer.width * task.scale + 15) / 16;
  task.lanes = lanes_of(layer.width * task.scale);
  if (any(0, 1) == 0) {
    for (uint16_t& lanes : task.lanes) lanes &= uint16_t(generator());
  }
  layer.lanes = task.lanes.data();
  layer.out_plane = 16 * layer.out_vectors;
  layer.past_caches = any(0, 1) == 0;
  if (any(0, 1) == 0) layer.x_pitch = pitch;
  if (layer.finish == Finish::gate || (layer.finish == Finish::pairs && any(0, 1) == 0)) {
    task.skip = pairs_of(layer.channels / 2 * pitch, kind);
    task.row.skip = {task.skip.data() + kMargin, pitch};
    layer.skip_pitch = any(0, 1) * pitch;
  }
  task.measured = (layer.finish == Finish::pairs || layer.finish == Finish::gate) && any(0, 1) == 0;
}

void compare_rows(Task& task, const char* what, void (*const given)(const Layer&, const Row&),
                  void (*const definition)(const Layer&, const Row&), Numbers kind) {
  Layer& layer = task.layer;
  const int64_t planes = layer.finish == Finish::planar ? layer.channels : layer.channels / 2;
  const int64_t words = planes * layer.out_plane;
  std::vector<uint32_t> results[2][3];
  std::vector<float> statistics[2];
  const int64_t skipped = layer.finish == Finish::shuffle ? any(0, 2 * layer.shuffle) : -1;
  for (int i = 0; i < 2; ++i) {
    std::vector<Output> outputs;
    outputs.reserve(3);
    for (int64_t dy = 0; dy < 3; ++dy) {
      outputs.emplace_back(words);
      task.row.out[dy] = dy == skipped ? nullptr : outputs.back().first;
    }
    statistics[i].assign(32 * layer.channels, 0.25f);
    task.row.statistics = task.measured ? statistics[i].data() : nullptr;
    (i == 0 ? given : definition)(layer, task.row);
    kGiven.settle();
    for (int64_t dy = 0; dy < 3; ++dy) results[i][dy] = outputs[dy].words(words);
  }
  const bool gate = layer.finish == Finish::gate;
  if (gate && kind == Numbers::wild) return;  // the sigmoid is only near
  for (int dy = 0; dy < 3; ++dy) {
    if (layer.finish == Finish::planar) {
      std::vector<float> floats[2];
      for (int i = 0; i < 2; ++i) {
        floats[i].resize(results[i][dy].size());
        std::memcpy(floats[i].data(), results[i][dy].data(), 4 * floats[i].size());
      }
      compare(task.text(what), floats[0], floats[1]);
    } else {
      compare(task.text(what), results[0][dy], results[1][dy], gate);
    }
  }
  compare(task.text("statistics"), statistics[0], statistics[1], gate);
}

void convolutions(Numbers kind) {
  Task task;
  Layer& layer = task.layer;
  layer.finish = one_of({Finish::pairs, Finish::pairs, Finish::gate, Finish::shuffle, Finish::shuffle, Finish::planar});
  layer.size = one_of<int64_t>({1, 3, 3, 5, 9});
  layer.shuffle = layer.finish == Finish::shuffle ? any(2, 3) : 1;
  layer.phased = layer.finish == Finish::shuffle && any(0, 1) == 0;
  if (layer.phased) layer.size = 3;
  layer.pairs = any(1, kind == Numbers::wild ? 3 : 9);
  layer.channels = layer.finish == Finish::planar && any(0, 1) == 0 ? one_of<int64_t>({1, 3}) : 2 * any(1, 16);
  task.scale = layer.shuffle;
  const int64_t all = layer.channels * layer.shuffle * layer.shuffle;
  task.weight = pairs_of(layer.pairs * weight_words(layer.channels, layer.size, layer.shuffle, layer.phased), kind);
  layer.weight = task.weight.data();
  task.epilogue = floats(3 * all, kind);
  // What is taken off a gated value would leave little but the error of the sigmoid.
  if (layer.finish == Finish::gate) std::fill(task.epilogue.end() - all, task.epilogue.end(), 0.f);
  layer.epilogue = task.epilogue.data();
  set_rows(task, kind);
  compare_rows(task, "convolve_row", kGiven.convolve_row, kDefinition.convolve_row, kind);
}

void scalings(Numbers kind) {
  Task task;
  Layer& layer = task.layer;
  layer.finish = Finish::pairs;
  layer.size = layer.shuffle = 1;
  layer.pairs = any(1, 20);
  layer.channels = 2 * layer.pairs;
  task.epilogue = floats(3 * layer.channels, kind);
  layer.epilogue = task.epilogue.data();
  set_rows(task, kind);
  compare_rows(task, "scale_row", kGiven.scale_row, kDefinition.scale_row, kind);
}

void enlargements() {
  const int64_t height = any(1, 6), width = any(1, 90), factor = any(2, 4), vectors = (width * factor + 15) / 16;
  std::vector<uint8_t> picture(3 * height * width);
  for (uint8_t& byte : picture) byte = uint8_t(generator());
  std::vector<int64_t> base;
  std::vector<int32_t> left, right;
  std::vector<float> share;
  for (int64_t i = 0; i < 16 * vectors; ++i) {
    const Position at(std::min(i, width * factor - 1), width, width * factor);
    if (i % 16 == 0) base.push_back(at.first);
    left.push_back(int32_t(at.first - base.back()));
    right.push_back(int32_t(at.second - base.back()));
    share.push_back(at.share);
  }
  const Enlargement of{picture.data(), height,      width,       3 * width,    factor,
                       vectors,        base.data(), left.data(), right.data(), share.data()};
  const int64_t first = any(0, vectors - 1), last = any(first + 1, vectors), y = any(0, height * factor - 1);
  std::vector<float> results[2];
  for (int i = 0; i < 2; ++i) {
    std::vector<float> narrow(3 * (width + 16), std::nanf(""));
    results[i].assign(3 * 16 * vectors + 16, -7.f);
    (i == 0 ? kGiven : kDefinition).enlarge_row(of, y, first, last, narrow.data(), results[i].data(), 16 * vectors);
  }
  compare("enlarge_row", results[0], results[1]);
}

void bytes(Numbers kind) {
  const int64_t s = any(1, 4), vectors = any(1, 7), plane = 16 * vectors;
  std::vector<float> planes = floats(3 * s * s * plane, kind), added = floats(3 * s * plane, kind);
  for (float& value : planes) value = kind == Numbers::usual ? 0.5f + 0.3f * value : value;
  for (float& value : added) value *= kind == Numbers::usual ? 50.f : 1.f;
  FloatRow row{planes.data(), any(0, 1) == 0 ? added.data() : nullptr, plane, one_of({255.f, 1.f, 2.5f, 127.5f}), 0, 0};
  row.first = any(0, vectors - 1);
  row.last = any(row.first + 1, vectors);
  std::vector<uint8_t> results[2];
  for (int i = 0; i < 2; ++i) {
    results[i].assign(3 * s * plane + 64, 99);
    const ConvolutionKernels& kernels = i == 0 ? kGiven : kDefinition;
    const int64_t dy = s - 1;
    s == 1 ? kernels.plain_bytes(row, results[i].data()) : kernels.shuffled_bytes(row, s, dy, results[i].data());
  }
  compare(s == 1 ? "plain_bytes" : "shuffled_bytes by " + std::to_string(s), results[0], results[1]);
}

void grids(Numbers kind) {
  const int64_t height = any(1, 8), vectors = any(1, 5), pitch = 16 * vectors + 2 * kMargin;
  std::vector<uint32_t> x = pairs_of(2 * (height + 2) * pitch, kind), skip = pairs_of(2 * (height + 2) * pitch, kind);
  const auto planes = [&](std::vector<uint32_t>& data) {
    return PairPlanes{data.data() + pitch + kMargin, (height + 2) * pitch, pitch, height, 16 * vectors, 2};
  };
  const PairPlanes from = planes(x), other = planes(skip);
  std::vector<float> values = floats(4 * 16 * vectors, kind), sums[2];
  std::vector<uint16_t> lanes(vectors);
  for (uint16_t& word : lanes) word = uint16_t(generator());
  std::vector<uint32_t> results[2];
  const bool skipped = any(0, 1) == 0;
  for (int i = 0; i < 2; ++i) {
    const ConvolutionKernels& kernels = i == 0 ? kGiven : kDefinition;
    sums[i].assign(4 * 16 * vectors + 16, -7.f);
    kernels.sum_rows(from, 1, 0, height, vectors, sums[i].data());
    results[i] = x;  // in place
    const PairPlanes to = planes(results[i]);
    kernels.scale_rows(to, skipped ? &other : nullptr, to, 1, 0, height, vectors, values.data(), lanes.data(), 0.2f);
  }
  compare("sum_rows", sums[0], sums[1]);
  compare("scale_rows", results[0], results[1]);
}

void interpolations(Numbers kind) {
  const int64_t columns = any(1, 40), width = any(1, 100), padded = (width + 15) / 16 * 16;
  const std::vector<float> low = floats(columns, kind), high = floats(columns, kind);
  std::vector<int32_t> first(padded), second(padded);
  std::vector<float> share(padded);
  for (int64_t i = 0; i < width; ++i) {
    const Position at(i, columns, width);
    first[i] = int32_t(at.first), second[i] = int32_t(at.second), share[i] = at.share;
  }
  const std::vector<uint16_t> lanes = lanes_of(width);
  std::vector<uint32_t> results[2];
  for (int i = 0; i < 2; ++i) {
    results[i].assign(padded + 16, 7);
    (i == 0 ? kGiven : kDefinition)
        .interpolate_row(low.data(), high.data(), first.data(), second.data(), share.data(), width, lanes.data(),
                         results[i].data());
  }
  compare("interpolate_row", results[0], results[1]);
}

}  // namespace

int main() {
  for (const Numbers kind : {Numbers::usual, Numbers::wild}) {
    for (int i = 0; i < 150; ++i) {
      convolutions(kind);
      scalings(kind);
      enlargements();
      bytes(kind);
      grids(kind);
      interpolations(kind);
    }
  }
  std::printf("%d comparisons of %s\n", comparisons, kGiven.name);
}

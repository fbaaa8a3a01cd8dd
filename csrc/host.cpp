// mga_kernels._host: what is no tensor op. Build facts, CPU features, and the filters of PNG rows.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace py = pybind11;

namespace {

py::dict build_facts() {
  py::dict facts;
  facts["version"] = MGA_VERSION;
#if defined(__clang__)
  facts["compiler"] = "clang " __clang_version__;
#else
  facts["compiler"] = "g++ " __VERSION__;
#endif
  facts["torch_target"] = MGA_TORCH_TARGET;
  facts["flags"] = MGA_FLAGS;
  facts["sanitize"] = MGA_SANITIZE[0] ? py::object(py::str(MGA_SANITIZE)) : py::none();
#ifdef MGA_WITH_CUDA
  facts["cuda"] = MGA_CUDA_VERSION;
  facts["cuda_archs"] = py::str(MGA_CUDA_ARCHS).attr("split")(";");
#else
  facts["cuda"] = py::none();
  facts["cuda_archs"] = py::list();
#endif
  return facts;
}

// Instruction sets that the processor has and, but for AMX, the operating system keeps the registers of.
py::dict cpu_features() {
  py::dict features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  features["avx2"] = bool(__builtin_cpu_supports("avx2"));
  features["fma"] = bool(__builtin_cpu_supports("fma"));
  features["avx512f"] = bool(__builtin_cpu_supports("avx512f"));
  features["avx512bw"] = bool(__builtin_cpu_supports("avx512bw"));
  features["avx512_vnni"] = bool(__builtin_cpu_supports("avx512vnni"));
  features["avx512_bf16"] = bool(__builtin_cpu_supports("avx512bf16"));
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool leaf7 = __get_cpuid_count(7, 0, &a, &b, &c, &d);
  features["amx_bf16"] = leaf7 && (d >> 22 & 1);
  features["amx_tile"] = leaf7 && (d >> 24 & 1);
  features["amx_int8"] = leaf7 && (d >> 25 & 1);
#elif defined(__aarch64__)
  features["neon"] = true;
#endif
  return features;
}

// A byte of a row taken as -128 to 127, without its sign.
inline uint32_t size_of(uint8_t value) { return value < 128 ? value : 256u - value; }

inline uint8_t paeth(int16_t left, int16_t up, int16_t beyond) {
  const int16_t by_left = int16_t(std::abs(up - beyond)), by_up = int16_t(std::abs(left - beyond));
  const int16_t by_beyond = int16_t(std::abs(left + up - 2 * beyond));
  const int16_t other = by_up <= by_beyond ? up : beyond;
  return uint8_t((by_left <= by_up) & (by_left <= by_beyond) ? left : other);
}

// A row of `count` bytes, and the one above it, each with `step` zeros in front -> its filter and the filtered bytes.
// `room`: of 4 rows.
void filter_row(const uint8_t* x, const uint8_t* up, int64_t step, int64_t count, uint8_t* room, uint8_t* out) {
  constexpr uint8_t kFilters[] = {0, 2, 1, 4};  // none, up, sub and Paeth; of those that are as good, the first
  const uint8_t *left = x - step, *beyond = up - step;
  uint8_t* const rows[] = {room, room + count, room + 2 * count, room + 3 * count};
  std::memcpy(rows[0], x, size_t(count));
  for (int64_t i = 0; i < count; ++i) rows[1][i] = uint8_t(x[i] - up[i]);
  for (int64_t i = 0; i < count; ++i) rows[2][i] = uint8_t(x[i] - left[i]);
  for (int64_t i = 0; i < count; ++i) rows[3][i] = uint8_t(x[i] - paeth(left[i], up[i], beyond[i]));
  int best = 0;
  uint64_t least = UINT64_MAX;
  for (int filter = 0; filter < 4; ++filter) {
    uint64_t sum = 0;
    for (int64_t first = 0; first < count; first += 1 << 16) {
      const int64_t end = std::min<int64_t>(first + (1 << 16), count);
      uint32_t part = 0;
      for (int64_t i = first; i < end; ++i) part += size_of(rows[filter][i]);
      sum += part;
    }
    if (sum < least) best = filter, least = sum;
  }
  out[0] = kFilters[best];
  std::memcpy(out + 1, rows[best], size_t(count));
}

// See images/packing.py. uint8 (rows, W, C), of which the first one is above the others unless `top`.
py::array_t<uint8_t> filtered_rows(const py::array_t<uint8_t, py::array::c_style>& values, bool top) {
  if (values.ndim() != 3 || values.shape(0) < (top ? 0 : 1)) {
    throw py::value_error("filtered_rows: the pixels must be uint8 (H, W, C), with a row above them unless top");
  }
  const int64_t rows = values.shape(0) - (top ? 0 : 1), step = values.shape(2), count = values.shape(1) * step;
  py::array_t<uint8_t> out({rows, 1 + count});
  const uint8_t* in = values.data();
  uint8_t* to = out.mutable_data();
  const py::gil_scoped_release others_may_run;
  std::vector<uint8_t> line(size_t(step + count), 0), above(size_t(step + count), 0), room(size_t(4 * count));
  if (!top) std::copy(in, in + count, above.begin() + step), in += count;
  for (int64_t row = 0; row < rows; ++row, in += count, to += 1 + count) {
    std::copy(in, in + count, line.begin() + step);
    filter_row(line.data() + step, above.data() + step, step, count, room.data(), to);
    line.swap(above);
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Build facts and CPU features of mga_kernels, and the filters of PNG rows.";
  m.def("build_facts", &build_facts, "How this library was built: version, compiler, flags, CUDA toolkit and archs.");
  m.def("cpu_features", &cpu_features, "Instruction sets of this processor that kernels may use: name -> bool.");
  m.def("filtered_rows", &filtered_rows, "Rows of pixels as PNG filters them, see mga_kernels.images.packing.");
}

// mga_kernels._host: what is no tensor op. Build facts, CPU features, and the packing of numpy images.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "image_packing.h"

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

std::string shape_text(const py::array& array) { return py::str(array.attr("shape")); }

template <typename T>
void check_array(const char* name, const py::array& array, const char* expected) {
  if (!py::isinstance<py::array_t<T>>(array) || array.ndim() != 3) {
    throw py::value_error(std::string(name) + " must be " + expected + ", got " + std::string(py::str(array.dtype())) +
                          " " + shape_text(array));
  }
}

template <typename T>
mga::Planes<T> planes_of(const py::array& array, void* data) {
  return {static_cast<char*>(data), array.shape(0),   array.shape(1),  array.shape(2),
          array.strides(0),         array.strides(1), array.strides(2)};
}

void pack_image(const py::array& image, py::array out, double scale) {
  check_array<uint8_t>("pack_image: image", image, "uint8 (H, W, 3)");
  check_array<float>("pack_image: out", out, "float32 (3, H', W')");
  if (image.shape(2) != 3 || out.shape(0) != 3) {
    throw py::value_error("pack_image: image must be (H, W, 3) and out (3, H', W'), got " + shape_text(image) +
                          " and " + shape_text(out));
  }
  if (image.shape(0) < 1 || image.shape(1) < 1 || out.shape(1) < image.shape(0) || out.shape(2) < image.shape(1)) {
    throw py::value_error("pack_image: out " + shape_text(out) + " must hold the non-empty image " + shape_text(image));
  }
  if (!out.writeable()) throw py::value_error("pack_image: out is read-only");
  auto from = planes_of<uint8_t>(image, const_cast<void*>(image.data()));
  auto to = planes_of<float>(out, out.mutable_data());
  py::gil_scoped_release release;
  mga::pack(from, to, scale);
}

void unpack_image(const py::array& planes, py::array out, double scale) {
  check_array<float>("unpack_image: planes", planes, "float32 (3, H', W')");
  check_array<uint8_t>("unpack_image: out", out, "uint8 (H, W, 3)");
  if (planes.shape(0) != 3 || out.shape(2) != 3) {
    throw py::value_error("unpack_image: planes must be (3, H', W') and out (H, W, 3), got " + shape_text(planes) +
                          " and " + shape_text(out));
  }
  if (planes.shape(1) < out.shape(0) || planes.shape(2) < out.shape(1)) {
    throw py::value_error("unpack_image: planes " + shape_text(planes) + " do not cover out " + shape_text(out));
  }
  if (!out.writeable()) throw py::value_error("unpack_image: out is read-only");
  auto from = planes_of<float>(planes, const_cast<void*>(planes.data()));
  auto to = planes_of<uint8_t>(out, out.mutable_data());
  py::gil_scoped_release release;
  mga::unpack(from, to, static_cast<float>(scale));
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Build facts, CPU features and numpy image packing of mga_kernels.";
  m.def("build_facts", &build_facts, "How this library was built: version, compiler, flags, CUDA toolkit and archs.");
  m.def("cpu_features", &cpu_features, "Instruction sets of this processor that kernels may use: name -> bool.");
  m.def(
      "pack_image", &pack_image, py::arg("image").noconvert(), py::arg("out").noconvert(), py::arg("scale"),
      "pack_image(image, out, scale): uint8 (H, W, 3) -> float32 planes (3, H', W') written to ``out``.\n\n"
      "Each value is multiplied by ``scale``. Where ``out`` is larger, it is filled below and to the right by "
      "reflection\n"
      "without repeating the edge, as often as needed (an axis of one pixel repeats it). Any strides. ValueError on a\n"
      "wrong dtype or shape. The interpreter lock is released while it works.");
  m.def("unpack_image", &unpack_image, py::arg("planes").noconvert(), py::arg("out").noconvert(), py::arg("scale"),
        "unpack_image(planes, out, scale): float32 planes (3, H', W') -> uint8 (H, W, 3) written to ``out``.\n\n"
        "Each value is multiplied by ``scale``, clamped to 0..255 and rounded half to even, as torch.round does; NaN "
        "gives\n"
        "0. ``planes`` may be larger: what is below and to the right is cropped. Any strides. ValueError on a wrong "
        "dtype or\n"
        "shape. The interpreter lock is released while it works.");
}

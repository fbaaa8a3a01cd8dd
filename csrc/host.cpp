// mga_kernels._host: what is no tensor op. Build facts and CPU features.
#include <pybind11/pybind11.h>

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

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Build facts and CPU features of mga_kernels.";
  m.def("build_facts", &build_facts, "How this library was built: version, compiler, flags, CUDA toolkit and archs.");
  m.def("cpu_features", &cpu_features, "Instruction sets of this processor that kernels may use: name -> bool.");
}

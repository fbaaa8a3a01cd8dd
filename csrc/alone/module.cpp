// mga_kernels._alone: convolve_maps_ over NumPy's arrays, without PyTorch, whose import takes longer than a photograph.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>
#include <optional>
#include <system_error>
#include <thread>

#include "maps/reader.h"
#include "simd/instruction_set.h"

namespace py = pybind11;

namespace mga {
namespace {

ScalarType type_of(const py::array& array) {
  if (py::isinstance<py::array_t<float>>(array)) return ScalarType::Float;
  STD_TORCH_CHECK(py::isinstance<py::array_t<uint8_t>>(array), kOp, ": an array is neither float32 nor uint8");
  return ScalarType::Byte;
}

Tensor tensor_of(const py::array& array) {
  const ScalarType type = type_of(array);
  std::vector<int64_t> sizes, strides;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    STD_TORCH_CHECK(array.strides(i) % array.itemsize() == 0, kOp, ": an array's strides are no whole items");
    sizes.push_back(array.shape(i)), strides.push_back(array.strides(i) / array.itemsize());
  }
  return Tensor(const_cast<void*>(array.data()), type, std::move(sizes), std::move(strides), array.writeable());
}

std::vector<Tensor> tensors_of(const std::vector<py::array>& arrays) {
  std::vector<Tensor> tensors;
  for (const py::array& array : arrays) tensors.push_back(tensor_of(array));
  return tensors;
}

// On `most` threads with the calling one; on fewer where the system gives no more.
void run_on_threads(ChainRun& work, int64_t most) {
  const int64_t count = std::max<int64_t>(std::min(most, work.tasks()), 1);
  std::vector<std::thread> others;
  std::vector<std::exception_ptr> errors(count);
  const auto run = [&](int64_t number) {
    try {
      work.work();
    } catch (...) {
      errors[number] = std::current_exception();
    }
  };
  others.reserve(count - 1);
  try {
    for (int64_t i = 1; i < count; ++i) others.emplace_back(run, i);
  } catch (const std::system_error&) {
  }
  run(0);
  for (std::thread& thread : others) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

void convolve_maps_of_arrays(const std::vector<py::array>& arrays, const std::vector<int64_t>& maps,
                             const std::vector<py::array>& weights, const std::vector<py::array>& epilogues,
                             const std::vector<int64_t>& layers, const std::vector<int64_t>& frame, double gain,
                             int64_t threads) {
  const std::vector<Tensor> tensors = tensors_of(arrays), packed = tensors_of(weights), ends = tensors_of(epilogues);
  const py::gil_scoped_release others_may_run;
  convolve_maps(tensors, maps, {}, {}, packed, ends, layers, {}, {}, frame, gain, std::nullopt,
                [threads](ChainRun& work) { run_on_threads(work, threads); });
}

}  // namespace
}  // namespace mga

PYBIND11_MODULE(_alone, m) {
  m.doc() = "Convolutions in float maps without PyTorch.";
  m.def("convolve_maps_", &mga::convolve_maps_of_arrays,
        "See mga_kernels.ops.convolve_maps_; arrays of whole images, without masks and lists.");
  m.def("record_fields", &mga::record_fields, "The fields of a record by its name, with spaces between them.");
  m.def("map_kernels", [] { return std::string(mga::map_kernels().name); }, "Which kernels run.");
}

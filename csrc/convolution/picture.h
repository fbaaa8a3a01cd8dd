// Pictures in a tensor, and where they lie in what a chain makes.
#pragma once
#include <algorithm>

#include "convolution/bytes.h"
#include "convolution/records.h"

namespace mga {

// uint8 (n, h, w, 3), or in float maps also float32, whose pixels lie side by side.
inline Picture picture_of(const char* op, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 4 && tensor.size(3) == 3 && tensor.stride(3) == 1 && tensor.stride(2) == 3, op,
                  ": pictures must be (n, H, W, 3), of contiguous rows");
  const int64_t item = item_size(op, tensor);
  return {static_cast<uint8_t*>(tensor.mutable_data_ptr()),
          tensor.size(0),
          tensor.size(1),
          tensor.size(2),
          tensor.stride(0) * item,
          tensor.stride(1) * item,
          1,
          0,
          0,
          0,
          1.f,
          3 * item};
}

// Places the pictures in an image of height x width, see Picture.
inline void cut_picture(const char* op, Picture& picture, const FrameRecord& frame, double gain, int64_t height,
                        int64_t width) {
  STD_TORCH_CHECK(frame.across >= 1 && frame.step_y >= 1 && frame.step_x >= 1 && frame.inset >= 0, op,
                  ": across, step_y and step_x of a frame with pictures must be at least 1, inset at least 0");
  picture.across = frame.across, picture.step_y = frame.step_y;
  picture.step_x = frame.step_x, picture.inset = frame.inset;
  picture.gain = float(gain);
  const int64_t down = (picture.count + picture.across - 1) / picture.across;
  STD_TORCH_CHECK(
      picture.inset + picture.height <= picture.step_y && picture.inset + picture.width <= picture.step_x &&
          (down - 1) * picture.step_y + picture.inset + picture.height <= height &&
          (std::min(picture.across, picture.count) - 1) * picture.step_x + picture.inset + picture.width <= width,
      op, ": ", picture.count, " pictures of ", picture.height, "x", picture.width, " do not fit into ", height, "x",
      width);
}

}  // namespace mga

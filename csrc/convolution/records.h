// What a chain is told in numbers. A record is a list of names; its struct, the names that Python asks for and the
// decoding are made of that list, so a field cannot be forgotten in one of them. mga_kernels/records.py has the same
// names and refuses a library that has others.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tensors.h"

namespace mga {

// A slot: what stages read and write. `scale`: its rows and columns are so many times those of the chain. `mask`: which
// of the masks it has, -1 for none. `pairs`, `rows`: of a ring; a slot with a tensor has those of the tensor.
#define MGA_SLOT_FIELDS(field) field(scale) field(mask) field(pairs) field(rows)

// A stage. `x`, `out`, `skip`: slots, and `..._pair` the first pair of it that is used; skip is -1 where nothing is
// added. `size` of the kernel, 0 for factors and offsets instead of a convolution. `shuffle`: s of the pixel shuffle at
// the end. `phased`: see Phases. `gate`: 1 where the skip is multiplied by the sigmoid of the result, not added.
// `lead`: rows by which the stage runs ahead of the last one; also the rows beyond a thread's band, and columns beyond
// a strip, that it computes. `statistics`: which of the tensors of sums it fills, -1 for none.
#define MGA_STAGE_FIELDS(field)                                                                             \
  field(x) field(x_pair) field(out) field(out_pair) field(skip) field(skip_pair) field(size) field(shuffle) \
      field(phased) field(gate) field(lead) field(statistics)

// `height`, `width` of the chain's image. `band`: rows of it in which layers over maps run together, 0 for one layer
// after the other. The other fields say where pictures lie in it, see Picture.
#define MGA_FRAME_FIELDS(field) \
  field(height) field(width) field(across) field(step_y) field(step_x) field(inset) field(band)

// A map of float32 (see maps/layout.h) or where a layer ends, as a slot without pairs and rows.
#define MGA_MAP_FIELDS(field) field(scale) field(mask)

// A layer over maps. `x`, `out`, `skip`, `also`: maps, and `..._channel` the first channel of it that is used, a
// multiple of 8; skip and also are -1 where nothing is added. `inputs`, `outputs`: channels of the weight. `size` of
// the kernel, 0 for factors; `stride` 1 or 2; `tile`: 4 or 6 for a 3x3 kernel that is computed in such tiles, or 0;
// `shuffle`: s of the pixel shuffle at the end; `gate`, `activation`: see MapGate, MapActivation; `tiles`: which of the
// lists of tiles it computes, -1 for all tiles; `zeros`: which of the lists it writes as zeros, -1 for none;
// `statistics`: which of the tensors of sums it fills, -1 for none; `parts`: the map with the sums of a 9x9 kernel's
// blocks, see maps/layout.h, -1 for none; `lead`: rows of the image by which it runs ahead of a band; `patch`, `step`,
// `inset`: where tiles lie that fill patches, see TilePlaces, a patch of 0 for tiles side by side.
#define MGA_LAYER_FIELDS(field)                                                                                        \
  field(x) field(x_channel) field(inputs) field(out) field(out_channel) field(outputs) field(skip) field(skip_channel) \
      field(also) field(also_channel) field(size) field(stride) field(tile) field(shuffle) field(gate)                 \
          field(activation) field(tiles) field(zeros) field(statistics) field(parts) field(lead) field(patch)          \
              field(step) field(inset)

#define MGA_MEMBER(name) int64_t name;
#define MGA_NAME(name) #name " "

#define MGA_RECORD(Record, name, FIELDS)                     \
  struct Record {                                            \
    FIELDS(MGA_MEMBER)                                       \
    static constexpr const char* kName = name;               \
    static constexpr const char* kFields = FIELDS(MGA_NAME); \
  };
MGA_RECORD(SlotRecord, "slot", MGA_SLOT_FIELDS)
MGA_RECORD(StageRecord, "stage", MGA_STAGE_FIELDS)
MGA_RECORD(FrameRecord, "frame", MGA_FRAME_FIELDS)
MGA_RECORD(MapRecord, "map", MGA_MAP_FIELDS)
MGA_RECORD(LayerRecord, "layer", MGA_LAYER_FIELDS)

#undef MGA_RECORD
#undef MGA_MEMBER
#undef MGA_NAME

// The fields of the record of this name, with spaces between them; empty where there is none.
inline std::string record_fields(std::string name) {
  if (name == SlotRecord::kName) return SlotRecord::kFields;
  if (name == StageRecord::kName) return StageRecord::kFields;
  if (name == FrameRecord::kName) return FrameRecord::kFields;
  if (name == MapRecord::kName) return MapRecord::kFields;
  if (name == LayerRecord::kName) return LayerRecord::kFields;
  return "";
}

// Records of which the numbers stand one after the other.
template <typename Record>
std::vector<Record> decode(const char* op, const std::vector<int64_t>& numbers) {
  constexpr size_t kFields = sizeof(Record) / sizeof(int64_t);
  STD_TORCH_CHECK(numbers.size() % kFields == 0, op, ": a ", Record::kName, " is ", kFields, " numbers (",
                  Record::kFields, "), which ", numbers.size(), " is no multiple of");
  std::vector<Record> records(numbers.size() / kFields);
  if (!records.empty()) std::memcpy(records.data(), numbers.data(), numbers.size() * sizeof(int64_t));
  return records;
}

}  // namespace mga

// Memory that will be read soon, fetched a few lines at a time between the products. Part of body.h.

class Ahead {
 public:
  // Pixels [x, x + pixels) of rows [y, y + rows) of the first groups of a map.
  void add(const MapSource& source, int64_t y, int64_t rows, int64_t x, int64_t pixels, int64_t groups) {
    const int64_t lines = (pixels * kGroup * 4 + 63) / 64 + 1;
    places_[count_++] = {&source, y, y + rows, x, groups, lines};
    total_ += rows * groups * lines;
    if (count_ == 1) find_run();
  }

  // What a layer adds to so many pixels of M rows of what it makes, but where it has just read it.
  template <int M>
  void add_joined(const MapLayer& layer, int64_t row, int64_t column, int64_t pixels) {
    if (layer.has_skip && layer.skip.first != layer.x.first) {
      add(layer.skip, row, M, column, pixels, layer.vectors);
    }
    if (layer.has_also && layer.also.first != layer.x.first) {
      add(layer.also, row, M, column, pixels, layer.vectors);
    }
  }

  // Over so many steps.
  void spread(int64_t steps) { rate_ = (total_ + steps - 1) / steps; }

  INLINE void step() {
    for (int64_t left = rate_; left > 0 && now_ < count_;) {
      const int64_t lines = left < lines_ ? left : lines_;
      const char *at = at_, *const end = at + lines * 64;
      for (; at < end; at += 64) __builtin_prefetch(at, 0, 2);
      at_ = end;
      left -= lines;
      lines_ -= lines;
      if (lines_ == 0) next_run();
    }
  }

 private:
  struct Place {
    const MapSource* source;
    int64_t row, end, x, groups, lines;
  };

  void next_run() {
    if (++group_ == places_[now_].groups) {
      group_ = 0;
      if (++places_[now_].row == places_[now_].end) ++now_;
      if (now_ == count_) return;
    }
    find_run();
  }
  void find_run() {
    const Place& place = places_[now_];
    const MapTap row = tap(*place.source, place.row);
    at_ = reinterpret_cast<const char*>(row.at + group_ * row.group + place.x * kGroup);
    lines_ = place.lines;
  }

  static constexpr int64_t kMost = 3 * 48;  // of three maps for each tile of a task
  Place places_[kMost];
  int64_t count_ = 0, total_ = 0, rate_ = 0;
  int64_t now_ = 0, group_ = 0, lines_ = 0;  // lines of this run that are left, from at_ on
  const char* at_ = nullptr;
};

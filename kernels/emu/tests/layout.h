// Layouts of embeddings, for the emulated tests.
#pragma once
#include "check.h"

// A layout made the plain way: levels coarse to fine, each with channels of one map; groups are the distinct cells.
struct Level { int a, b, groups; std::vector<int> area; };
struct Layout {
  int grid_h, grid_w, d = 0, n;
  std::vector<std::vector<float>> maps;
  std::vector<int> shape;
  std::vector<uint32_t> channel;
  std::vector<Level> levels;
  std::vector<std::vector<uint32_t>> group_of;  // [level][position]
  std::vector<float> mean;
  std::vector<uint64_t> mean_at;
  std::vector<int> mean_rows;

  std::vector<uint32_t> ancestors(int level) const {
    std::vector<uint32_t> all;
    for (int g = 0; g < levels[level].groups; g++)
      for (size_t l = 0; l < levels.size(); l++) {
        const int* area = &levels[level].area[4 * g];
        all.push_back(l <= (size_t)level ? group_of[l][area[0] * grid_w + area[2]] : 0xffffffffu);
      }
    return all;
  }
  double delta(int picture, int y, int x, int j) const {
    const uint32_t* c = &channel[4 * j];
    const int *dim = &shape[3 * c[0]], v = y * dim[0] / grid_h, u = x * dim[1] / grid_w;
    const double value = maps[c[0]][(((size_t)picture * dim[0] + v) * dim[1] + u) * dim[2] + c[1]];
    return value - mean[mean_at[c[2]] + (size_t)group_of[c[2]][y * grid_w + x] * mean_rows[c[2]] + c[3]];
  }
};

static Layout make(std::vector<std::vector<int>> shapes, std::vector<int> counts, int n, bool nested) {
  Layout l;
  l.n = n, l.grid_h = shapes[0][0], l.grid_w = shapes[0][1];
  for (size_t m = 0; m < shapes.size(); m++) {
    for (int s : shapes[m]) l.shape.push_back(s);
    l.maps.push_back(check::uniform((size_t)n * shapes[m][0] * shapes[m][1] * shapes[m][2], 20 + m));
  }
  std::vector<std::vector<int>> cells(2);  // where groups begin, per axis
  for (int m = (int)shapes.size() - 1; m >= 0; m--) {
    const bool last = m == 0;
    if (nested || m == (int)shapes.size() - 1) l.levels.push_back({l.d, l.d, 0, {}}), l.mean_rows.push_back(0);
    for (int c = 0; c < counts[m]; c++) {
      const uint32_t level = (uint32_t)l.levels.size() - 1;
      l.channel.insert(l.channel.end(), {(uint32_t)m, (uint32_t)(shapes[m][2] - 1 - c), level, (uint32_t)l.mean_rows[level]++});
      l.d++;
    }
    l.levels.back().b = l.d;
    if (!nested && !last) continue;
    std::vector<int> starts[2];
    for (int axis = 0; axis < 2; axis++)
      for (int i = 0; i < (axis ? l.grid_w : l.grid_h); i++) {
        bool split = i == 0 || !nested;
        for (size_t k = m; nested && k < shapes.size(); k++) {
          const int side = axis ? l.grid_w : l.grid_h;
          split |= i > 0 && i * shapes[k][axis] / side != (i - 1) * shapes[k][axis] / side;
        }
        if (split) starts[axis].push_back(i);
      }
    std::vector<uint32_t> of(l.grid_h * l.grid_w);
    Level& level = l.levels.back();
    for (size_t i = 0; i < starts[0].size(); i++)
      for (size_t j = 0; j < starts[1].size(); j++) {
        const int y1 = i + 1 < starts[0].size() ? starts[0][i + 1] : l.grid_h, x1 = j + 1 < starts[1].size() ? starts[1][j + 1] : l.grid_w;
        for (int v : {starts[0][i], y1, starts[1][j], x1}) level.area.push_back(v);
        for (int y = starts[0][i]; y < y1; y++)
          for (int x = starts[1][j]; x < x1; x++) of[y * l.grid_w + x] = (uint32_t)level.groups;
        level.groups++;
      }
    l.group_of.push_back(of);
  }
  for (size_t k = 0; k < l.levels.size(); k++) {
    l.mean_at.push_back(l.mean.size());
    auto part = check::uniform((size_t)l.levels[k].groups * l.mean_rows[k], 60 + k);
    l.mean.insert(l.mean.end(), part.begin(), part.end());
  }
  return l;
}

// Entry (r, c), c <= r, of rows a .. b in panels of 16.
static size_t packed(int a, int b, int r, int c) {
  size_t at = 0;
  for (int r0 = a;; r0 += 16) {
    const int h = std::min(16, b - r0);
    if (r < r0 + h) return c < r0 ? at + (size_t)c * h + r - r0 : at + (size_t)r0 * h + (c - r0) * h - (c - r0) * (c - r0 - 1) / 2 + r - c;
    at += (size_t)h * r0 + h * (h + 1) / 2;
  }
}

// The four maps of a kernel; those that are not there are never read.
#define MAPS md[0]->data(), md[std::min<size_t>(1, md.size() - 1)]->data(), md[std::min<size_t>(2, md.size() - 1)]->data(), md[md.size() - 1]->data()

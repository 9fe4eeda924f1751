// A loaded module: its kernels, and its variables in global memory.
#pragma once
#include "decode.h"
#include "run.h"

namespace ptx {

struct Module {
  Text text;
  std::map<std::string, Kernel> kernels;
  std::vector<std::unique_ptr<unsigned char[]>> variables;

  // Throws Invalid. The variables become buffers of `memory`, until `unload`. `target`: the chip, as in sm_80.
  Module(const char* source, Memory& memory, int target) : text(Parser(source).module()) {
    if (text.target > target || (text.alone && text.target != target)) throw Invalid{1, ptx::text("compiled for sm_%d, the chip is sm_%d", text.target, target)};
    for (auto& [name, v] : text.global) {
      variables.push_back(std::make_unique<unsigned char[]>(v.bytes + 256));
      v.address = ((uint64_t)variables.back().get() + 255) / 256 * 256;
      std::copy(v.value.begin(), v.value.end(), (unsigned char*)v.address);
      memory.add(v.address, v.bytes, true);
    }
    for (auto& [name, entry] : text.entries) kernels.emplace(name, Decoder(text, entry).kernel());
  }
  void unload(Memory& memory) {
    for (auto& [name, v] : text.global) memory.remove(v.address);
  }
};

}  // namespace ptx

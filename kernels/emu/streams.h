// Streams of the stand-in driver: what is asked of one is done late, as far as the order of CUDA allows, or at once, as chance
// has it. A read before the work it needs, memory that is written over while a copy still has to read it, and a stream that does
// not wait for another then give wrong numbers.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <utility>

namespace streams {

// Gives an error, or 0.
typedef std::function<int()> Work;

struct Stream {
  std::deque<Work> work;
  uint64_t asked = 0, done = 0;
};

// How much of a stream's work comes before it.
struct Event {
  void* stream = nullptr;
  uint64_t at = 0;
};

class Streams {
 public:
  void open(void* stream) { all_[stream]; }
  void close(void* stream) {
    until(stream, ~0ull);
    all_.erase(stream);
  }
  // The stream of all programs that name none is done with at once.
  int ask(void* stream, Work work) {
    if (!stream) return drain(), work();
    Stream& s = all_[stream];
    s.work.push_back(std::move(work));
    s.asked++;
    chance_ = chance_ * 6364136223846793005ull + 1442695040888963407ull;
    if (chance_ >> 62 == 0) until(stream, ~0ull);
    return 0;
  }
  Event record(void* stream) { return {stream, all_[stream].asked}; }
  bool happened(const Event& event) {
    auto at = all_.find(event.stream);
    return at == all_.end() || at->second.done >= event.at;
  }
  void until(const Event& event) { until(event.stream, event.at); }
  void until(void* stream, uint64_t at) {
    auto found = all_.find(stream);
    if (found == all_.end()) return;
    Stream& s = found->second;
    while (s.done < at && !s.work.empty()) {
      const Work work = std::move(s.work.front());
      s.work.pop_front();
      const int result = work();
      s.done++;
      if (result && !failed_) failed_ = result;
    }
  }
  void drain() {
    for (auto& [stream, _] : all_) until(stream, ~0ull);
  }
  // What went wrong in work since this was asked last, of any stream.
  int failed() { return std::exchange(failed_, 0); }

 private:
  std::map<void*, Stream> all_;
  uint64_t chance_ = 1;
  int failed_ = 0;
};

}  // namespace streams

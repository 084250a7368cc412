// The events that `counting.h` counts, and the functions that the compiler calls for each access to memory.
#pragma once

#define UNCOUNTED __attribute__((no_sanitize_thread))

namespace tdt::host {

UNCOUNTED inline Counts& counts_of(Tally::Block& block, const Tally::Thread& thread) {
  return block.intervals[thread.interval];
}

// While it exists, accesses are not counted.
struct Uncounted {
  UNCOUNTED Uncounted() { ++the_tally.unseen; }
  UNCOUNTED ~Uncounted() { --the_tally.unseen; }
};

UNCOUNTED inline void end_fetch(Tally::Thread& thread) {
  if (thread.fetching) ++(thread.is_far ? thread.far : thread.near);
  thread.fetching = thread.is_far = false;
}

// Ends a thread's part of an interval, and with the first thread the interval. What a thread has fetched before it
// waits for other blocks, it waits for together with that.
UNCOUNTED inline void close_interval(Tally::Block& block, Tally::Thread& thread, End end) {
  if (end != End::wait) end_fetch(thread);
  Counts& counts = counts_of(block, thread);
  if (thread.products > counts.longest_products) counts.longest_products = thread.products;
  if (thread.shuffles > counts.longest_shuffles) counts.longest_shuffles = thread.shuffles;
  if (thread.near > counts.longest_near) counts.longest_near = thread.near;
  if (thread.far > counts.longest_far) counts.longest_far = thread.far;
  thread.products = thread.shuffles = thread.near = thread.far = thread.awaited = 0;
  counts.end = static_cast<long long>(end);
  if (++thread.interval == static_cast<int>(block.intervals.size())) block.intervals.emplace_back();
}

// How often shared memory is at work for some lanes' accesses to `words`, each several words from there.
UNCOUNTED inline int passes(const Access* const* lanes, int count) {
  constexpr std::uintptr_t kBanks = 32, kWord = 4;
  int used[kBanks] = {};
  static std::uintptr_t words[kBanks][4 * kLanes];  // not on the stack, which is a fiber's
  int most = 0;
  for (int i = 0; i < count; ++i) {
    const auto first = reinterpret_cast<std::uintptr_t>(lanes[i]->address);
    for (auto word = first / kWord; word <= (first + lanes[i]->bytes - 1) / kWord; ++word) {
      const auto bank = word % kBanks;
      int at = 0;
      while (at < used[bank] && words[bank][at] != word) ++at;
      if (at < used[bank]) continue;
      words[bank][used[bank]++] = word;
      if (used[bank] > most) most = used[bank];
    }
  }
  return most;
}

// Counts the accesses of a warp since its threads last met. Those of several lanes belong to one instruction if they
// are at the same place of the program, and each is its lane's first there, or each its second, and so on.
UNCOUNTED inline void end_accesses(Tally::Block& block, std::size_t warp) {
  Tally::Thread* lanes = block.threads.data() + warp * kLanes;
  std::size_t done[kLanes] = {};
  for (;;) {
    // The instruction that most lanes have before them goes first, so that those that skip it wait for the others.
    const Access* first = nullptr;
    int most = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (done[lane] == lanes[lane].accesses.size()) continue;
      const Access& next = lanes[lane].accesses[done[lane]];
      if (first && next.place == first->place) continue;
      int same = 0;
      for (int other = 0; other < kLanes; ++other)
        same += done[other] < lanes[other].accesses.size() && lanes[other].accesses[done[other]].place == next.place;
      if (same <= most) continue;
      first = &next;
      most = same;
      if (same == kLanes) break;
    }
    if (!first) break;
    const Access* together[kLanes];
    int count = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (done[lane] == lanes[lane].accesses.size()) continue;
      const Access& next = lanes[lane].accesses[done[lane]];
      if (next.place != first->place) continue;
      together[count++] = &next;
      ++done[lane];
    }
    Counts& counts = block.intervals[first->interval];
    const int times = passes(together, count);
    (first->written ? counts.shared_written : counts.shared_read) += times;
  }
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane].accesses.clear();
}

UNCOUNTED inline void met(bool whole_block) {
  if (!the_tally.counts) return;
  const Uncounted uncounted;
  const Fiber& fiber = self();
  Tally::Block& block = the_tally.blocks[fiber.block->index];
  if (!whole_block) {
    end_accesses(block, fiber.thread / kLanes);
    return;
  }
  for (std::size_t warp = 0; warp < block.threads.size() / kLanes; ++warp) end_accesses(block, warp);
}

UNCOUNTED inline void tally(Event event) {
  if (!the_tally.counts) return;
  const Uncounted uncounted;
  const Fiber& fiber = self();
  Tally::Block& block = the_tally.blocks[fiber.block->index];
  Tally::Thread& thread = block.threads[fiber.thread];
  const bool first_lane = fiber.thread % kLanes == 0;
  switch (event) {
    case Event::arrival:
      close_interval(block, thread, End::arrival);
      return;
    case Event::meanwhile:
      close_interval(block, thread, End::meanwhile);
      return;
    case Event::wait:
      close_interval(block, thread, End::wait);
      return;
    case Event::acquired:
      block.cached.clear();
      block.order.clear();
      return;
    case Event::conversion:
      counts_of(block, thread).converted += 2;
      return;
    case Event::poll:
      ++counts_of(block, thread).polls;
      counts_of(block, thread).global_read -= thread.awaited;  // they are read again
      thread.awaited = 0;
      return;
    case Event::barrier:
      counts_of(block, thread).barriers += fiber.thread == 0;
      ++thread.barriers;
      thread.awaited = 0;
      break;
    case Event::product:
      ++thread.products;
      counts_of(block, thread).products += first_lane;
      break;
    case Event::shuffle:
      ++thread.shuffles;
      counts_of(block, thread).shuffles += first_lane;
      break;
  }
  end_fetch(thread);
}

constexpr std::size_t kSector = 32;
// An H100's multiprocessor has 256 KB, of which 228 are shared memory.
constexpr std::size_t kCached = (256 - 228) * 1024 / kSector;

// When a block first read this sector since its cache was emptied, in barriers of the block.
UNCOUNTED inline long long first_read(Tally::Block& block, const Tally::Thread& thread, const void* address) {
  const auto sector = reinterpret_cast<std::uintptr_t>(address) / kSector;
  const auto found = block.cached.emplace(sector, thread.barriers);
  if (!found.second) return found.first->second;
  counts_of(block, thread).global_read += kSector;
  block.order.push_back(sector);
  // Not what was read since the threads last met: here they read it in no order, and on a card together.
  while (block.order.size() > kCached && block.cached[block.order.front()] < thread.barriers) {
    block.cached.erase(block.order.front());
    block.order.pop_front();
  }
  return thread.barriers;
}

UNCOUNTED inline void fetched(const void* address) {
  if (!the_tally.counts) return;
  const Uncounted uncounted;
  Tally::Block& block = the_tally.blocks[self().block->index];
  first_read(block, block.threads[self().thread], address);
}

UNCOUNTED inline void accessed(const void* place, const void* address, int bytes, bool written, bool waits = false) {
  if (!the_tally.counts || the_tally.unseen) return;
  const Uncounted uncounted;
  const Fiber* fiber = Machine::get().current;
  if (fiber == nullptr) return;
  const char* at = static_cast<const char*>(address);
  const char* stack = fiber->stack.get();
  if (at >= stack && at < stack + kStack) return;
  Tally::Block& block = the_tally.blocks[fiber->block->index];
  Tally::Thread& thread = block.threads[fiber->thread];
  Counts& counts = counts_of(block, thread);
  const char* shared = reinterpret_cast<const char*>(fiber->block->memory.data());
  if (at >= shared && at < shared + fiber->block->memory.size() * 16) {
    thread.accesses.push_back({place, address, bytes, thread.interval, written});
    if (written) counts.shared_stored += bytes;
    return;
  }
  const char* warps = reinterpret_cast<const char*>(fiber->block->warps.data());
  if (at >= warps && at < warps + fiber->block->warps.size() * sizeof(Warp)) return;
  // What the machine itself keeps of the launch.
  const auto within = [at](const void* object, std::size_t size) UNCOUNTED {
    return at >= static_cast<const char*>(object) && at < static_cast<const char*>(object) + size;
  };
  if (within(fiber->block, sizeof(Block)) || within(fiber, sizeof(Fiber)) ||
      within(&Machine::get(), sizeof(Machine)) ||
      within(&Machine::the, sizeof Machine::the))
    return;
  if (written) {
    counts.global_written += bytes;
    return;
  }
  constexpr long long kTogether = 32;  // bytes of the words that a thread waits for together
  thread.awaited = waits ? (thread.awaited < kTogether ? thread.awaited : 0) + bytes : 0;
  thread.fetching = true;
  // Awaited words come from other blocks. What other threads read at the same time is still on its way.
  if (waits) counts.global_read += bytes;
  thread.is_far = waits || first_read(block, thread, address) == thread.barriers || thread.is_far;
}

}  // namespace tdt::host

extern "C" {
// Begins to count, or ends it. Then the counts can be read until they begin again.
UNCOUNTED void tdt_count(int counts, unsigned blocks, unsigned threads) {
  tdt::host::Tally& tally = tdt::host::the_tally;
  tally.counts = false;
  if (!counts) return;
  tally.blocks.assign(blocks, {});
  for (auto& block : tally.blocks) block.threads.resize(threads);
  tally.counts = true;
}
// Copies a block's counts [intervals], if there is room for so many, and returns their number.
UNCOUNTED int tdt_counted(unsigned block, int room, tdt::host::Counts* to) {
  const auto& intervals = tdt::host::the_tally.blocks[block].intervals;
  for (int i = 0; i < room && i < static_cast<int>(intervals.size()); ++i) to[i] = intervals[i];
  return static_cast<int>(intervals.size());
}

UNCOUNTED void AnnotateIgnoreReadsBegin(const char*, int) { ++tdt::host::the_tally.unseen; }
UNCOUNTED void AnnotateIgnoreReadsEnd(const char*, int) { --tdt::host::the_tally.unseen; }
UNCOUNTED void AnnotateIgnoreWritesBegin(const char*, int) {}
UNCOUNTED void AnnotateIgnoreWritesEnd(const char*, int) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
UNCOUNTED void* __tsan_create_fiber(unsigned) { return nullptr; }
UNCOUNTED void* __tsan_get_current_fiber() { return nullptr; }
UNCOUNTED void __tsan_switch_to_fiber(void*, unsigned) {}
#define TDT_PLACE __builtin_return_address(0)
#define TDT_ACCESS(size)                                                                                             \
  UNCOUNTED void __tsan_read##size(void* at) { tdt::host::accessed(TDT_PLACE, at, size, false); }                    \
  UNCOUNTED void __tsan_write##size(void* at) { tdt::host::accessed(TDT_PLACE, at, size, true); }                    \
  UNCOUNTED void __tsan_unaligned_read##size(void* at) { tdt::host::accessed(TDT_PLACE, at, size, false); }          \
  UNCOUNTED void __tsan_unaligned_write##size(void* at) { tdt::host::accessed(TDT_PLACE, at, size, true); }
TDT_ACCESS(1)
TDT_ACCESS(2)
TDT_ACCESS(4)
TDT_ACCESS(8)
TDT_ACCESS(16)
#undef TDT_ACCESS
UNCOUNTED void __tsan_read_range(void* at, unsigned long size) {
  tdt::host::accessed(TDT_PLACE, at, static_cast<int>(size), false);
}
UNCOUNTED void __tsan_write_range(void* at, unsigned long size) {
  tdt::host::accessed(TDT_PLACE, at, static_cast<int>(size), true);
}
// A word that a block waits for counts once, however often it is read.
UNCOUNTED std::uint32_t __tsan_atomic32_load(const volatile std::uint32_t* word, int) {
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
UNCOUNTED std::uint64_t __tsan_atomic64_load(const volatile std::uint64_t* word, int) {
  tdt::host::accessed(TDT_PLACE, const_cast<std::uint64_t*>(word), 8, false, true);
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
UNCOUNTED void __tsan_atomic32_store(volatile std::uint32_t* word, std::uint32_t value, int) {
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
UNCOUNTED void __tsan_atomic64_store(volatile std::uint64_t* word, std::uint64_t value, int) {
  tdt::host::accessed(TDT_PLACE, const_cast<std::uint64_t*>(word), 8, true);
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
UNCOUNTED std::uint32_t __tsan_atomic32_fetch_add(volatile std::uint32_t* word, std::uint32_t value, int) {
  return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
}
UNCOUNTED int __tsan_atomic64_compare_exchange_strong(volatile std::uint64_t* word, std::uint64_t* expected,
                                                      std::uint64_t value, int, int) {
  tdt::host::accessed(TDT_PLACE, const_cast<std::uint64_t*>(word), 8, true);
  return __atomic_compare_exchange_n(word, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
}

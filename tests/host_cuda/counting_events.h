// The events that `counting.h` counts, and the functions that the compiler calls for each access to memory.
#pragma once

#define UNCOUNTED __attribute__((no_sanitize_thread))

namespace tdt::host {

UNCOUNTED inline Counts& counts_of(Tally::Block& block) { return block.intervals.back(); }

// While it exists, accesses are not counted.
struct Uncounted {
  UNCOUNTED Uncounted() { ++the_tally.unseen; }
  UNCOUNTED ~Uncounted() { --the_tally.unseen; }
};

UNCOUNTED inline void end_fetch(Tally::Thread& thread) {
  if (thread.fetching) ++(thread.is_far ? thread.far : thread.near);
  thread.fetching = thread.is_far = false;
}

UNCOUNTED inline void close_interval(Tally::Block& block, End end) {
  const Uncounted uncounted;
  Counts& counts = counts_of(block);
  for (Tally::Thread& thread : block.threads) {
    end_fetch(thread);
    if (thread.products > counts.longest_products) counts.longest_products = thread.products;
    if (thread.shuffles > counts.longest_shuffles) counts.longest_shuffles = thread.shuffles;
    if (thread.near > counts.longest_near) counts.longest_near = thread.near;
    if (thread.far > counts.longest_far) counts.longest_far = thread.far;
    const long long barriers = thread.barriers;
    thread = Tally::Thread{};
    thread.barriers = barriers;
  }
  counts.end = static_cast<long long>(end);
  block.shared = end != End::wait;
  block.intervals.emplace_back();
}

UNCOUNTED inline void tally(Event event) {
  if (!the_tally.counts) return;
  const Uncounted uncounted;
  const Fiber& fiber = self();
  Tally::Block& block = the_tally.blocks[fiber.block->index];
  Tally::Thread& thread = block.threads[fiber.thread];
  const bool first_lane = fiber.thread % kLanes == 0;
  if (event == Event::wait) {
    if (block.shared) close_interval(block, End::wait);
    return;
  }
  if (event == Event::meanwhile) {
    if (block.met != thread.barriers) close_interval(block, End::meanwhile);
    block.met = thread.barriers;
    return;
  }
  if (event == Event::conversion) {
    counts_of(block).converted += 2;
    return;
  }
  if (event != Event::poll) end_fetch(thread);
  if (event == Event::barrier) {
    counts_of(block).barriers += fiber.thread == 0;
    ++thread.barriers;
  }
  if (event == Event::poll) {
    ++counts_of(block).polls;
    counts_of(block).global_read -= thread.awaited;  // they are read again
    thread.awaited = 0;
  }
  if (event == Event::barrier) thread.awaited = 0;
  if (event == Event::arrival) {
    close_interval(block, End::arrival);
    block.cached.clear();  // the barrier's acquire empties the cache
  }
  if (event == Event::product) {
    ++thread.products;
    counts_of(block).products += first_lane;
  }
  if (event == Event::shuffle) {
    ++thread.shuffles;
    counts_of(block).shuffles += first_lane;
  }
}

// When a block first read this sector since its cache was emptied, in barriers of the block.
UNCOUNTED inline long long first_read(Tally::Block& block, const Tally::Thread& thread, const void* address) {
  const auto sector = reinterpret_cast<std::uintptr_t>(address) / 32;
  return block.cached.emplace(sector, thread.barriers).first->second;
}

UNCOUNTED inline void fetched(const void* address) {
  if (!the_tally.counts) return;
  const Uncounted uncounted;
  Tally::Block& block = the_tally.blocks[self().block->index];
  first_read(block, block.threads[self().thread], address);
}

UNCOUNTED inline void accessed(const void* address, long long bytes, bool written, bool waits = false) {
  if (!the_tally.counts || the_tally.unseen) return;
  const Uncounted uncounted;
  const Fiber* fiber = Machine::get().current;
  if (fiber == nullptr) return;
  const char* at = static_cast<const char*>(address);
  const char* stack = fiber->stack.get();
  if (at >= stack && at < stack + kStack) return;
  Tally::Block& block = the_tally.blocks[fiber->block->index];
  Counts& counts = counts_of(block);
  const char* shared = reinterpret_cast<const char*>(fiber->block->memory.data());
  if (at >= shared && at < shared + fiber->block->memory.size() * 16) {
    (written ? counts.shared_written : counts.shared_read) += bytes;
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
  (written ? counts.global_written : counts.global_read) += bytes;
  if (written) return;
  Tally::Thread& thread = block.threads[fiber->thread];
  constexpr long long kTogether = 32;  // bytes of the words that a thread waits for together
  thread.awaited = waits ? (thread.awaited < kTogether ? thread.awaited : 0) + bytes : 0;
  thread.fetching = true;
  // What other threads read at the same time is still on its way, and awaited words come from other blocks.
  thread.is_far = first_read(block, thread, address) == thread.barriers || waits || thread.is_far;
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
#define TDT_ACCESS(size)                                                                             \
  UNCOUNTED void __tsan_read##size(void* at) { tdt::host::accessed(at, size, false); }               \
  UNCOUNTED void __tsan_write##size(void* at) { tdt::host::accessed(at, size, true); }               \
  UNCOUNTED void __tsan_unaligned_read##size(void* at) { tdt::host::accessed(at, size, false); }     \
  UNCOUNTED void __tsan_unaligned_write##size(void* at) { tdt::host::accessed(at, size, true); }
TDT_ACCESS(1)
TDT_ACCESS(2)
TDT_ACCESS(4)
TDT_ACCESS(8)
TDT_ACCESS(16)
#undef TDT_ACCESS
UNCOUNTED void __tsan_read_range(void* at, unsigned long size) {
  tdt::host::accessed(at, static_cast<long long>(size), false);
}
UNCOUNTED void __tsan_write_range(void* at, unsigned long size) {
  tdt::host::accessed(at, static_cast<long long>(size), true);
}
// A word that a block waits for counts once, however often it is read.
UNCOUNTED std::uint32_t __tsan_atomic32_load(const volatile std::uint32_t* word, int) {
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
UNCOUNTED std::uint64_t __tsan_atomic64_load(const volatile std::uint64_t* word, int) {
  tdt::host::accessed(const_cast<std::uint64_t*>(word), 8, false, true);
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}
UNCOUNTED void __tsan_atomic32_store(volatile std::uint32_t* word, std::uint32_t value, int) {
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
UNCOUNTED void __tsan_atomic64_store(volatile std::uint64_t* word, std::uint64_t value, int) {
  tdt::host::accessed(const_cast<std::uint64_t*>(word), 8, true);
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
UNCOUNTED std::uint32_t __tsan_atomic32_fetch_add(volatile std::uint32_t* word, std::uint32_t value, int) {
  return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST);
}
UNCOUNTED int __tsan_atomic64_compare_exchange_strong(volatile std::uint64_t* word, std::uint64_t* expected,
                                                      std::uint64_t value, int, int) {
  tdt::host::accessed(const_cast<std::uint64_t*>(word), 8, true);
  return __atomic_compare_exchange_n(word, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
}

// Counts what each block of an emulated launch does. Compiled with -Wp,-fsanitize=thread, so that each access to memory
// calls a function here, in place of ThreadSanitizer's own.
//
// A block's counts are kept apart by how many barriers over the grid it has arrived at.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace tdt::host {

// Bytes and numbers of events, of a whole block but for the last three. Those are the most of a thread or warp: they
// wait for each other.
struct Counts {
  long long global_read, global_written, shared_read, shared_written;
  long long converted;          // numbers that were stored in shared memory as 16 bits
  long long barriers;           // of the block
  long long shuffles;           // of a warp, all together
  long long products;           // of a tile's step with eight columns, by a warp
  long long polls;              // of words that had not changed
  long long longest_products;   // most products of one warp
  long long longest_shuffles;   // most shuffles of one warp
  long long longest_fetches;    // most of one thread: loads of global memory that follow something else
};

struct Tally {
  struct Thread {
    long long products = 0, shuffles = 0, fetches = 0;
    long long awaited = 0;  // bytes of the words that it read last, if it waits for them
    bool fetching = false;
  };
  struct Block {
    std::vector<Counts> intervals{1};
    std::vector<Thread> threads;
  };
  std::vector<Block> blocks;
  bool counts = false;
  int unseen = 0;
};

inline Tally the_tally;

enum class Event { barrier, shuffle, product, arrival, poll };
void tally(Event event);

}  // namespace tdt::host

#define TDT_COUNT(event) tdt::host::tally(tdt::host::Event::event)

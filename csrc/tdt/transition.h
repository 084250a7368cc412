// decision -> next frame: duration skipping, blanks and the symbol cap.
//
// Header-only and without dependencies: compiled by host compilers and by NVRTC alike.
#pragma once

#include "row.h"

namespace tdt {

struct Position {
  int frame;    // the next frame to score; past the end once the utterance is done
  int symbols;  // tokens emitted at that frame so far
};

// A blank moves by its duration, but at least one frame. A token moves by its duration. A token of duration 0 stays on
// its frame, unless it is the last of max_symbols there: then it moves one frame. In RNN-T every token has duration 0.
TDT_HD Position advanced(Position at, bool is_blank, int duration, const GreedyOptions& options) {
  if (is_blank) return {at.frame + (duration > 1 ? duration : 1), 0};
  if (duration > 0) return {at.frame + duration, 0};
  const int symbols = at.symbols + 1;
  if (symbols >= options.max_symbols) return {at.frame + 1, 0};
  return {at.frame, symbols};
}

}  // namespace tdt

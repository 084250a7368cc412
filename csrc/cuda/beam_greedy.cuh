// A step of greedy search, run as a beam of one.
#pragma once

#include "beam_view.cuh"

namespace tdt::cuda {

class GreedyBeam : public BeamView {
 public:
  using BeamView::BeamView;

 protected:
  // Whether a step waits only for the rows of the hypotheses that it extends.
  static constexpr bool kInTurn = false;

  // Leaves the one entry of the next step, and returns 1.
  __device__ int step() {
    if (thread_ == 0) {
      const Hypothesis& h = hypotheses()[0];
      const Ranked& row = row_of(h);
      Best largest, blank;
      largest.value = row.largest;
      largest.index = row.largest_index;
      blank.value = row.blank_logit;
      blank.index = row.blank_index;
      // If no token may be emitted, none is ranked.
      const bool is_blank = !emits(largest, blank, search_.options.greedy) || row.count == 0;
      const int which = blank_rank(blank, search_.layout);
      double logprob = blank_logprob(h, which);
      if (!is_blank) logprob = static_cast<double>(token_logprob(h, 0)) + bonus(h, token_of(h, 0));
      entries_[0] = extended(0, is_blank ? kBlankRank : 0, logprob + duration_logprob(h, row.longest), row.longest,
                             is_blank ? blank_frames(which, row.longest) : frames(row.longest));
    }
    sync_block();
    return 1;
  }
};

}  // namespace tdt::cuda

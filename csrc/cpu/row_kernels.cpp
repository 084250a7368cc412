// Compiled once per instruction set; TDT_ISA names the set and the namespace.
//
// Every instruction set gives the same bits: the order of a sum depends on kLanes alone, and multiplications are not
// fused with additions (-ffp-contract=off).
#include "row_kernels.h"

#include <cmath>
#include <cstring>

#include "elementwise.h"
#include "lanes.h"

namespace tdt::cpu::TDT_ISA {
namespace {

// The last, partial group of lanes, filled up with kLowest.
struct Tail {
  float lanes[kLanes];
  Tail(const float* x, int n) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = j < n ? x[j] : kLowest;
  }
};

struct Largest {
  Floats best[kVectors];
  Largest() {
    for (Floats& b : best) b = all(kLowest);
  }
  void add(const float* x) {
    for (int v = 0; v < kVectors; ++v) {
      const Floats values = load(x + v * kWidth);
      best[v] = values > best[v] ? values : best[v];  // NaN never wins
    }
  }
  float value() const {
    float lanes[kLanes], max = kLowest;
    std::memcpy(lanes, best, sizeof lanes);
    for (float lane : lanes) max = lane > max ? lane : max;
    return max;
  }
};

struct SumExp {
  Floats sums[kVectors] = {};
  float max;
  explicit SumExp(float max) : max(max) {}
  void add(const float* x) {
    for (int v = 0; v < kVectors; ++v) {
      const Floats values = load(x + v * kWidth);
      const Floats numbers = values > kLowest ? values : all(kLowest);  // NaN counts as -inf
      const Floats finite = numbers > kLargest ? all(kLargest) : numbers;
      sums[v] += exp_nonpositive(finite - max);
    }
  }
  float value() const {
    float lanes[kLanes];
    std::memcpy(lanes, sums, sizeof lanes);
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
    return lanes[0];
  }
};

template <class Accumulator>
inline float accumulate(Accumulator accumulator, const float* x, int n) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) accumulator.add(x + i);
  if (i < n) accumulator.add(Tail(x + i, n - i).lanes);
  return accumulator.value();
}

struct Reduce {
  static constexpr int kBlock = 16 * kLanes;

  Best best(const float* row, int first, int last) const {
    return best(first, last, [&](int begin, int) { return row + begin; });
  }

  Best best(const float* row, int first, int last, const Steering& steering) const {
    const auto [allowed, scores] = steering;
    float values[kBlock];
    return best(first, last, [&](int begin, int end) {
      int i = begin;
      for (; i + kWidth <= end; i += kWidth) {
        Floats lanes = load(row + i);
        if (scores) lanes = (lanes > kLargest ? all(kLargest) : lanes) + load(scores + i);
        if (allowed) lanes = allowed_lanes(allowed + i) ? lanes : all(kLowest);
        store(values + i - begin, lanes);
      }
      for (; i < end; ++i) values[i - begin] = may_win(allowed, i) ? steered(row[i], i, steering) : kLowest;
      return values;
    });
  }

  float log_sum_exp(const float* part, int n, float max) const {
    return std::log(accumulate(SumExp(max), part, n));
  }

 private:
  // Goes block by block, so that the index of the largest entry has to be looked for in one block only.
  // `entries(begin, end)` points to the entries of a block.
  template <class Entries>
  static Best best(int first, int last, Entries entries) {
    float max = kLowest;
    int block = first;
    for (int i = first; i < last; i += kBlock) {
      const int end = i + kBlock < last ? i + kBlock : last;
      const float largest = sanitized(accumulate(Largest(), entries(i, end), end - i));
      if (largest > max) {
        max = largest;
        block = i;
      }
    }
    if (!(max > kLowest)) return Best{};
    const float* found = entries(block, block + kBlock < last ? block + kBlock : last);
    int place = 0;
    while (!(found[place] >= max)) ++place;
    return candidate(max, block + place);
  }
};

// The best tokens so far, best first. Tokens of equal value are in ascending order.
class Ranking {
 public:
  Ranking(const float* row, float scale, const float* bonus, Allowed allowed, int size, std::int32_t* tokens,
          float* values)
      : row_(row), bonus_(bonus), allowed_(allowed), scale_(scale), size_(size), tokens_(tokens), values_(values) {}

  // Adds the tokens [first, last), which are higher than all that were added before.
  void add(int first, int last) {
    int token = first;
    for (; token + kLanes <= last; token += kLanes)
      if (any_above(token) && (!allowed_ || any_allowed_above(token)))
        for (int i = 0; i < kLanes; ++i) add(token + i);
    for (; token < last; ++token) add(token);
  }

  int count() const { return count_; }

 private:
  Words above(int token) const {
    Floats values = load(row_ + token) * scale_;
    if (bonus_) values += load(bonus_ + token);
    return (Words)(values > bar_);
  }

  bool any_above(int token) const {
    Words found = {};
    for (int v = 0; v < kVectors; ++v) found |= above(token + v * kWidth);
    return any(found);
  }

  bool any_allowed_above(int token) const {
    Words found = {};
    for (int v = 0; v < kVectors; ++v)
      found |= above(token + v * kWidth) & allowed_lanes(allowed_ + token + v * kWidth);
    return any(found);
  }

  void add(int token) {
    float value = sanitized(sanitized(row_[token]) * scale_);
    if (bonus_) value = sanitized(value + bonus_[token]);
    if (!(value > bar_) || !may_win(allowed_, token)) return;
    int place = count_ < size_ ? count_++ : size_ - 1;
    for (; place > 0 && values_[place - 1] < value; --place) {
      values_[place] = values_[place - 1];
      tokens_[place] = tokens_[place - 1];
    }
    values_[place] = value;
    tokens_[place] = token;
    if (count_ == size_) bar_ = values_[size_ - 1];
  }

  const float *row_, *bonus_;
  const Allowed allowed_;
  const float scale_;
  const int size_;
  std::int32_t* tokens_;
  float* values_;
  int count_ = 0;
  float bar_ = kLowest;  // what a value must exceed
};

// The sum of p^alpha, or of p^alpha ln p if `times_log`, over a part. `max` is its largest entry, `log_sum` the
// logarithm of the sum of exp(x - max).
float power_sum(const float* part, int n, float max, float log_sum, float alpha, bool times_log) {
  struct Sum {
    Floats sums[kVectors] = {};
    float max, log_sum, alpha;
    bool times_log;
    void add(const float* x) {
      for (int v = 0; v < kVectors; ++v) {
        const Floats values = load(x + v * kWidth);
        const Floats numbers = values > kLowest ? values : all(kLowest);
        const Floats finite = numbers > kLargest ? all(kLargest) : numbers;
        const Floats logprob = (finite - max) - log_sum;
        const Floats power = exp_nonpositive(logprob < 0.0f ? logprob * alpha : Floats{});
        sums[v] += times_log ? (power > 0.0f ? power * logprob : Floats{}) : power;
      }
    }
    float value() const {
      float lanes[kLanes], sum = 0.0f;
      std::memcpy(lanes, sums, sizeof lanes);
      for (float lane : lanes) sum += lane;
      return sum;
    }
  };
  Sum sum;
  sum.max = max;
  sum.log_sum = log_sum;
  sum.alpha = alpha;
  sum.times_log = times_log;
  return accumulate(sum, part, n);
}

// log(sum(p^scale)). Log-probabilities times `scale`, minus this, are log-probabilities again.
float normalizer(const float* part, int n, float max, float log_sum, float scale) {
  return std::log(power_sum(part, n, max, 0.0f, scale, false)) - scale * log_sum;
}

}  // namespace

void rank_row(const float* row, const RowLayout& layout, const float* bonus, Allowed allowed, int ranks,
              const BeamOptions& options, RankedRow* ranked) {
  const Reduce reduce;
  const float scale = 1.0f / options.temperature;
  ranked->token_normalizer = ranked->duration_normalizer = 0.0f;
  const int entries = layout.token_entries(), blank_at = layout.blank, end = layout.blanks_end();
  const Best largest = better(reduce.best(row, 0, blank_at), reduce.best(row, end, entries));
  const Best blank = best_blank(row, layout);
  ranked->largest = largest;
  ranked->blank = blank;
  ranked->raised = 0.0f;
  if (largest.index != kNoIndex && !may_win(allowed, largest.index))
    ranked->raised = raised_by(
        largest, better(reduce.best(row, 0, blank_at, {allowed, nullptr}),
                        reduce.best(row, end, entries, {allowed, nullptr})));
  const float max = blank.value > largest.value ? blank.value : largest.value;
  if (max > kLowest) {
    const float log_sum = reduce.log_sum_exp(row, entries, max);
    Ranking ranking(row, scale, bonus, allowed, ranks, ranked->tokens, ranked->token_logprobs);
    ranking.add(0, blank_at);
    ranking.add(end, entries);
    ranked->count = ranking.count();
    for (int i = 0; i < ranked->count; ++i)
      ranked->token_logprobs[i] = log_probability(sanitized(row[ranked->tokens[i]]), max, log_sum);
    for (int i = 0; i < layout.num_blanks; ++i) {
      const float logit = sanitized(row[blank_at + i]);
      ranked->blank_logprobs[i] = logit > kLowest ? log_probability(logit, max, log_sum) : kLowest;
    }
    if (scale != 1.0f) ranked->token_normalizer = normalizer(row, entries, max, log_sum, scale);
    switch (options.statistic) {
      case Statistic::none: break;
      case Statistic::max_prob: ranked->statistic = std::exp(-log_sum); break;
      case Statistic::power_sum: ranked->statistic = power_sum(row, entries, max, log_sum, options.alpha, false); break;
      case Statistic::power_log_sum:
        ranked->statistic = power_sum(row, entries, max, log_sum, options.alpha, true);
        break;
      case Statistic::shannon: ranked->statistic = power_sum(row, entries, max, log_sum, 1.0f, true); break;
    }
  } else {  // no number: the last blank is certain
    ranked->count = 0;
    for (int i = 0; i < layout.num_blanks; ++i)
      ranked->blank_logprobs[i] = i == blank_rank(blank, layout) ? 0.0f : kLowest;
    ranked->statistic = certain_statistic(options.statistic);
  }

  const float* durations = row + entries;
  const Best longest = reduce.best(durations, 0, layout.num_durations);
  ranked->duration = chosen_duration(longest, layout);
  if (longest.index == kNoIndex) {  // no number: the table's first entry is certain
    for (int i = 0; i < layout.num_durations; ++i) ranked->duration_logprobs[i] = i == 0 ? 0.0f : kLowest;
    return;
  }
  const float log_sum = reduce.log_sum_exp(durations, layout.num_durations, longest.value);
  if (scale != 1.0f)
    ranked->duration_normalizer = normalizer(durations, layout.num_durations, longest.value, log_sum, scale);
  for (int i = 0; i < layout.num_durations; ++i) {
    const float logit = sanitized(durations[i]);
    ranked->duration_logprobs[i] = logit > kLowest ? log_probability(logit, longest.value, log_sum) : kLowest;
  }
}

void decide_rows(const float* rows, std::size_t count, const RowLayout& layout, const GreedyOptions& options,
                 const Masks& masks, const float* scores, std::int32_t* tokens, std::int32_t* durations,
                 float* token_logprobs, float* duration_logprobs) {
  for (std::size_t i = 0; i < count; ++i) {
    const Decision decision = decide(rows + i * layout.width(), layout, options, {masks[i], scores}, Reduce{});
    tokens[i] = decision.token;
    durations[i] = decision.duration;
    token_logprobs[i] = decision.token_logprob;
    duration_logprobs[i] = decision.duration_logprob;
  }
}

}  // namespace tdt::cpu::TDT_ISA

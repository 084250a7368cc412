// How sure a model is of each token. src/tdtdecode/confidence.py has the table of these formulas and their source, and
// computes them for the kernels in NumPy too; tests/capi compares both.
#pragma once

#include <algorithm>
#include <cmath>

#include "tdt/options.h"

namespace tdt::capi {

enum class Measure { none = 0, max_prob = 1, gibbs = 2, tsallis = 3, renyi = 4 };

struct Confidence {
  Measure measure = Measure::none;
  double alpha = 0.33;
  bool linear = false;

  // The sum over a joint row that the measure needs.
  Statistic statistic() const {
    if (measure == Measure::none) return Statistic::none;
    if (measure == Measure::max_prob) return Statistic::max_prob;
    if (alpha == 1.0) return Statistic::shannon;
    return measure == Measure::gibbs ? Statistic::power_log_sum : Statistic::power_sum;
  }

  // The confidence that follows from the sum `x` over a row of `entries` tokens, blank among them.
  float from_sum(double x, int entries) const {
    const double a = alpha, v = entries;
    double result;
    if (measure == Measure::max_prob) {
      result = (std::pow(x * v, a) - 1) / (std::pow(v, a) - 1);
    } else if (a == 1.0) {
      result = linear ? 1 + x / std::log(v) : (v * std::exp(x) - 1) / (v - 1);
    } else if (measure == Measure::gibbs) {
      const double least = std::exp(-a * std::pow(v, 1 - a) * std::log(v));
      result = linear ? 1 + x / (std::log(v) * std::pow(v, 1 - a)) : (std::exp(a * x) - least) / (1 - least);
    } else if (measure == Measure::tsallis) {
      const double least = std::exp((1 - std::pow(v, 1 - a)) / (1 - a));
      result = linear ? 1 + (1 - x) / (std::pow(v, 1 - a) - 1) : (std::exp((1 - x) / (1 - a)) - least) / (1 - least);
    } else if (linear) {
      result = 1 + std::log2(x) / ((a - 1) * std::log2(v));
    } else {
      result = (std::pow(x, 1 / (a - 1)) * v - 1) / (v - 1);
    }
    return static_cast<float>(std::min(std::max(result, 0.0), 1.0));
  }
};

}  // namespace tdt::capi

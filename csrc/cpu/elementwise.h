// Exponential, sigmoid and hyperbolic tangent over lanes.
//
// Every instruction set gives the same bits, because the order of operations is fixed and the compiler may not contract
// a multiplication and an addition into one operation.
#pragma once

#include "lanes.h"

namespace tdt::cpu::TDT_ISA {

// e^x for x <= 0, to 2 units in the last place; 0 from -87 down.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (truncation below 6e-9).
inline Floats exp_nonpositive(Floats x) {
  constexpr float kLog2e = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const Floats bounded = x > -87.0f ? x : all(-87.0f);
  const Floats shifted = bounded * kLog2e + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (bounded - n * kLn2High) - n * kLn2Low;
  Floats p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // The low bits of `shifted` hold n. Moved into the exponent they give the factor 2^n.
  const Words scale = (bits_of<Words>(shifted) << 23) + 0x3f800000u;
  return x > -87.0f ? p * bits_of<Floats>(scale) : Floats{};
}

// 1 / (1 + e^-x), to 3 units in the last place; NaN stays NaN.
inline Floats sigmoid(Floats x) {
  const Floats e = exp_nonpositive(x < 0.0f ? x : -x);
  const Floats y = (x < 0.0f ? e : all(1.0f)) / (1.0f + e);
  return x == x ? y : x;
}

// tanh x, to 3 units in the last place; NaN stays NaN.
// For |x| < 0.55 it is x + x^3 Q(x^2), where Q has degree 4 and interpolates at Chebyshev points. Otherwise it is
// 1 - 2 e / (1 + e) with the sign of x, where e = exp(-2 |x|).
inline Floats hyperbolic_tangent(Floats x) {
  const Floats size = x < 0.0f ? -x : x;
  const Floats z = x * x;
  Floats q = all(-0.00661574665f);
  q = q * z + 0.021312739f;
  q = q * z + -0.0539100653f;
  q = q * z + 0.133331176f;
  q = q * z + -0.33333332f;
  const Floats near = x + x * (z * q);
  const Floats e = exp_nonpositive(-2.0f * size);
  const Floats far = 1.0f - 2.0f * e / (1.0f + e);
  const Floats y = size < 0.55f ? near : (x < 0.0f ? -far : far);
  return x == x ? y : x;
}

}  // namespace tdt::cpu::TDT_ISA

// Layers whose weights have 8 bits, unsigned around 128, with a scale for each output. Activations get as many, signed,
// with a scale for each row: four of each are one instruction's product, and its sums are exact.
#pragma once
#include "strips.h"

namespace vit {

constexpr bool kQuantises = true;
constexpr int kMostInputs = 1024;
constexpr int kMiddle = 128;

struct QuantisedProduct {
  using Left = int8_t;
  using Right = uint8_t;
  using Sums = __m512i;
  using Result = int32_t;
  static constexpr int kInputs = 4;

  static Sums none() { return _mm512_setzero_si512(); }
  static Sums add(Sums sums, const Left* left, const Right* right) {
    int32_t four;
    std::memcpy(&four, left, sizeof four);
    return _mm512_dpbusd_epi32(sums, _mm512_load_si512(right), _mm512_set1_epi32(four));
  }
  static void keep(Result* at, Sums sums) { _mm512_store_si512(at, sums); }
};

// Rows of a panel in 8 bits: a value is its number times the row's scale. `middle` is what the weights' 128 adds.
struct QuantisedRows {
  alignas(64) int8_t values[kMostRows * kMostInputs];
  float scale[kMostRows];
  int32_t middle[kMostRows];
};

// A row's `inputs` numbers. A NaN among them makes the scale one, and so all that is made of the row.
template <int planes>
inline void quantise(const Rows& rows, int row, int inputs, QuantisedRows& to) {
  constexpr float kLargest = 127.0f;
  Lanes largest = zeros(), poison = zeros();
  for (int column = 0; column < inputs; column += kLanes) {
    const Lanes values = get<planes>(rows, row, column);
    largest = max(largest, max(values, sub(zeros(), values)));
    poison = mul_add(values, zeros(), poison);
  }
  const float range = largest_of(largest) + sum_of(poison);
  const Lanes inverse = all(range == 0 ? 0.0f : kLargest / range);
  __m512i sum = _mm512_setzero_si512();
  for (int column = 0; column < inputs; column += kLanes) {
    const __m512i whole = _mm512_cvtps_epi32(mul(get<planes>(rows, row, column), inverse));
    sum = _mm512_add_epi32(sum, whole);
    const __m128i bytes = _mm512_cvtsepi32_epi8(whole);
    _mm_store_si128(reinterpret_cast<__m128i*>(to.values + row * inputs + column), bytes);
  }
  to.scale[row] = range / kLargest;
  to.middle[row] = kMiddle * _mm512_reduce_add_epi32(sum);
}

// A panel's rows as the layers that have these inputs in common take them.
template <int planes>
struct Operand {
  const Rows rows;
  QuantisedRows quantised;

  Operand(const Linear& layer, const Rows& rows, const Panel& panel) : rows(rows) {
    for (int row = 0; layer.scales && row < panel.rows; ++row) quantise<planes>(rows, row, layer.inputs, quantised);
  }
};

// As `apply`.
template <int planes, class Finish>
inline void apply_quantised(const Linear& layer, const Operand<planes>& operand, const Panel& panel, Finish finish) {
  constexpr int kWidth = kStrips * kLanes;
  alignas(64) int32_t sums[kMostRows * kWidth];
  const QuantisedRows& quantised = operand.quantised;
  constexpr int kCovered = 4 * QuantisedProduct::kInputs;
  const int inputs = layer.inputs, depth = inputs / kCovered;
  each_strip(static_cast<const uint8_t*>(layer.tiles), kCovered * kLanes, depth, layer.outputs, panel.rows,
             [&]<int strips>(const uint8_t* right, auto between) {
               multiply_rows<strips, QuantisedProduct>(panel.rows, quantised.values, inputs, right,
                                                       size_t(inputs) * kLanes, depth, sums, kWidth, between);
             },
             [&](int row, int column, int at) {
               const __m512i sum = _mm512_load_si512(sums + row * kWidth + at * kLanes);
               const __m512i exact = _mm512_sub_epi32(sum, _mm512_set1_epi32(quantised.middle[row]));
               const Lanes scale = mul(all(quantised.scale[row]), load(layer.scales + column));
               finish(row, column, mul_add(_mm512_cvtepi32_ps(exact), scale, load(layer.bias + column)));
             });
}

}  // namespace vit

// ldmatrix, stmatrix and mma.sync: how a warp's registers hold matrices of 16-bit elements.
#include <cstring>

#include "simt/half.h"
#include "worker.h"

namespace simt {
namespace {

// ---- ldmatrix and stmatrix. Lane 8 i + r gives the address of row r of matrix i; of each 8 x 8
// matrix lane l holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4.

struct MatrixLane {
  uint32_t* registers;
  int count;
  bool transpose;
  uint32_t address;
  loc_t loc;
};

constexpr uint32_t kRowBytes = 16;

const MatrixLane& matrix_lane(void* const* payloads, unsigned lane) {
  return *static_cast<const MatrixLane*>(payloads[lane]);
}

void check_whole_warp(const char* instruction, unsigned mask) {
  if (mask == ~0u) return;
  fail(FaultKind::kCollective, current_fiber()->place,
       format("%s needs all 32 lanes", instruction));
}

uint16_t* row_of(void* const* payloads, unsigned lane) {
  const MatrixLane& request = matrix_lane(payloads, lane);
  return static_cast<uint16_t*>(from_smem(request.address, kRowBytes, kRowBytes, request.loc));
}

void load_matrices(void* const* payloads, unsigned mask) {
  check_whole_warp("ldmatrix", mask);
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  const MatrixLane& first = matrix_lane(payloads, 0);
  for (unsigned i = 0; i < unsigned(first.count); i++) {
    uint16_t rows[8][8];
    for (unsigned r = 0; r < 8; r++) {
      const uint16_t* row = row_of(payloads, 8 * i + r);
      worker.checker.read(worker.fiber(fiber->warp, 8 * i + r), row, kRowBytes, first.loc);
      memcpy(rows[r], row, kRowBytes);
    }
    for (unsigned lane = 0; lane < kWarpLanes; lane++) {
      unsigned r = lane / 4, c = 2 * (lane % 4);
      uint32_t low = first.transpose ? rows[c][r] : rows[r][c];
      uint32_t high = first.transpose ? rows[c + 1][r] : rows[r][c + 1];
      matrix_lane(payloads, lane).registers[i] = low | high << 16;
    }
  }
}

void store_matrices(void* const* payloads, unsigned mask) {
  check_whole_warp("stmatrix", mask);
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  const MatrixLane& first = matrix_lane(payloads, 0);
  for (unsigned i = 0; i < unsigned(first.count); i++) {
    uint16_t rows[8][8];
    for (unsigned lane = 0; lane < kWarpLanes; lane++) {
      unsigned r = lane / 4, c = 2 * (lane % 4);
      uint32_t pair = matrix_lane(payloads, lane).registers[i];
      (first.transpose ? rows[c][r] : rows[r][c]) = uint16_t(pair);
      (first.transpose ? rows[c + 1][r] : rows[r][c + 1]) = uint16_t(pair >> 16);
    }
    for (unsigned r = 0; r < 8; r++) {
      uint16_t* row = row_of(payloads, 8 * i + r);
      worker.checker.write(worker.fiber(fiber->warp, 8 * i + r), row, kRowBytes, first.loc);
      memcpy(row, rows[r], kRowBytes);
    }
  }
}

// ---- mma.m16n8k16. With g = lane / 4 and t = lane % 4, a lane holds of
//   a [16, 16]  rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9, in the order of the four
//   registers:
//               (g, low columns), (g + 8, low), (g, high), (g + 8, high)
//   b [16, 8]   column g, rows 2t, 2t + 1 and 2t + 8, 2t + 9
//   c, d [16, 8]  rows g and g + 8, columns 2t and 2t + 1

struct MmaLane {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
  const float* c;
};

template <Elt kElement>
float to_float(uint32_t bits) {
  return kElement == BF16 ? bf16_to_float(uint16_t(bits)) : half_to_float(uint16_t(bits));
}

template <Elt kElement>
void unpack(float* pair, uint32_t bits) {
  pair[0] = to_float<kElement>(bits & 0xffff);
  pair[1] = to_float<kElement>(bits >> 16);
}

// Products of 16-bit floats are exact in float; the sums are rounded to float one after the other,
// in the order of k. A GPU sums groups of products with more bits and rounds otherwise: results
// differ in the last bits.
template <Elt kElement>
void multiply_add(void* const* payloads, unsigned mask) {
  check_whole_warp("mma", mask);
  alignas(64) float a[16][16], b[16][8], sums[16][8];
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    const MmaLane& operands = *static_cast<const MmaLane*>(payloads[lane]);
    unsigned g = lane / 4, t = lane % 4;
    unpack<kElement>(&a[g][2 * t], operands.a[0]);
    unpack<kElement>(&a[g + 8][2 * t], operands.a[1]);
    unpack<kElement>(&a[g][2 * t + 8], operands.a[2]);
    unpack<kElement>(&a[g + 8][2 * t + 8], operands.a[3]);
    for (unsigned half = 0; half < 2; half++) {
      float pair[2];
      unpack<kElement>(pair, operands.b[half]);
      b[2 * t + 8 * half][g] = pair[0];
      b[2 * t + 8 * half + 1][g] = pair[1];
    }
    memcpy(&sums[g][2 * t], operands.c, 2 * sizeof(float));
    memcpy(&sums[g + 8][2 * t], operands.c + 2, 2 * sizeof(float));
  }
  for (unsigned row = 0; row < 16; row++) {
    float sum[8];
    memcpy(sum, sums[row], sizeof sum);
    for (unsigned k = 0; k < 16; k++) {
      for (unsigned column = 0; column < 8; column++) sum[column] += a[row][k] * b[k][column];
    }
    memcpy(sums[row], sum, sizeof sum);
  }
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    const MmaLane& operands = *static_cast<const MmaLane*>(payloads[lane]);
    unsigned g = lane / 4, t = lane % 4;
    memcpy(operands.d, &sums[g][2 * t], 2 * sizeof(float));
    memcpy(operands.d + 2, &sums[g + 8][2 * t], 2 * sizeof(float));
  }
}

}  // namespace

void ldmatrix(uint32_t* registers, int count, bool transpose, uint32_t address, loc_t loc) {
  MatrixLane lane{registers, count, transpose, address, loc};
  collective(Collective::kLoadMatrix, ~0u, &lane, load_matrices, loc);
}

void stmatrix(const uint32_t* registers, int count, bool transpose, uint32_t address, loc_t loc) {
  MatrixLane lane{const_cast<uint32_t*>(registers), count, transpose, address, loc};
  collective(Collective::kStoreMatrix, ~0u, &lane, store_matrices, loc);
}

void mma_m16n8k16(Elt element, float* d, const uint32_t* a, const uint32_t* b, const float* c,
                  loc_t loc) {
  MmaLane lane{d, a, b, c};
  collective(Collective::kMma, ~0u, &lane, element == BF16 ? multiply_add<BF16> : multiply_add<F16>,
             loc);
}

}  // namespace simt

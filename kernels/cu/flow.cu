// The ends of a training step of a flow: samples in, likelihood out, gradients of everything that is a vector. Rows are samples,
// or pixels [n, h, w]; see coupling.cu for the halves, c = c1 + c2 channels.
//
// flow_gather: rows `fibres[turn each ..][0 .. n]` of features [m, c] into x1 [n, c1] and x2 [n, c2], and of codes [positions, k]
//   those of `fibre % positions` into cond [n, k]. NaN for what is beyond `fibres` [listed] or the features.
// flow_output: of each row, with z = [z1; z2]:
//   likelihood (CFlow-AD): value = (log_det - (sum z^2 + c ln 2 pi) / 2) / c, loss = -ln sigmoid(value), weight share sigmoid(-value);
//   energy (FastFlow): value = sum z^2 / c, loss = sum z^2 / 2 - log_det, weight share.
//   Where g1 is not null: g = weight z, the gradient of z, and slope = -weight, that of log_det; loss [rows] in f64.
// flow_next: losses[turn] = the sum of `loss` [rows] over `count`; then turn + 1, but not beyond the
//   last of `losses` [capacity]. The last launch of a step.
// flow_sums: for the rows of part p = blockIdx.y, from p part to (p + 1) part, sums [parts, columns + c] in f64:
//   column sums of ga [rows, c2 twice], of gh [rows, h], of g = [g1; g2], of slope [rows]; then of g z. columns = 2 c2 + h + c + 1.
//   With `add` they are added to what is there.
// flow_vectors: these sums, added over the parts in order, to the gradients of theta [c], offset [c], outer bias [h] and inner
//   bias [2 c2], which lie one after the other in `values`, `first`, `second` (Adam's moments) and `gradient`; with numbers and turn
//   (not null) Adam's step. `offset`, `outer`, `inner` are copies of their parts.
// flow_scale: scale = 0.1 softplus(theta), beta 1/2, and log_scale = sum of ln(scale) in f64.
//
// | kernel | launch, 256 threads | flops and bytes |
// |---|---|---|
// | flow_gather | grid ceil(n (c + k) / 256) | 8 n (c + k) bytes |
// | flow_output | grid ceil(rows / 32) | 3 c flops a row; 4 c bytes a row, 8 c with gradients |
// | flow_next | grid 1, 2048 bytes of shared memory | 8 rows bytes |
// | flow_sums | grid (ceil(columns / 32), parts), 4096 bytes of shared memory | 4 rows (columns + c) bytes |
// | flow_vectors | grid ceil((c + h + 2 c2) / 256) | 8 parts (columns + c) and 28 (2 c + h + 2 c2) bytes |
// | flow_scale | grid 1, 2048 bytes of shared memory | 8 c bytes |
//
// A warp makes 4 rows of flow_output at a time. Sums: 32 lanes, then pairwise (flow_output); rows of a part in 8 interleaved sums, 8 rows at a time in f32, those in f64
// (flow_sums); 256 interleaved sums, then pairwise (flow_next, flow_scale).
// Registers on sm_80 and sm_90, without spills: flow_output 64 and 64, the others at most 40 and 40. Share of roofline: not
// measured in this form; that before it, H200, 2026-11-28: flow_output 31 %, flow_sums 23 % of a copy.
#include "common/adam.cuh"

namespace flow {

constexpr double LN_TWO_PI = 1.8378770664093453;
// Rows of a warp of flow_output, whose numbers are all on their way at a time.
constexpr int WARP_ROWS = 4;

// Sum of one number of each of 256 threads, in all of them. `shared` has 2048 bytes; all threads call it.
__device__ __forceinline__ double total(double v, double* shared) {
  shared[threadIdx.x] = v;
  for (unsigned by = 128; by; by >>= 1) {
    __syncthreads();
    if (threadIdx.x < by) shared[threadIdx.x] += shared[threadIdx.x + by];
  }
  __syncthreads();
  return shared[0];
}

// Sums of a column over rows begin, begin + 8, ... below `last`, as long as there are eight, and with Z those of its products:
// eight rows at a time in f32, all of them on their way before the first is added.
template <bool Z>
__device__ __forceinline__ void eights(const float* __restrict__ g, int pitch, const float* __restrict__ z, int zitch, int& begin,
                                       int last, double& sum, double& product) {
  for (; begin + 56 < last; begin += 64) {
    float v[8], by[8], a = 0.f, b = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const long long row = begin + 8 * i;
      v[i] = g[row * pitch];
      if (Z) by[i] = z[row * zitch];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
      a += v[i];
      if (Z) b = fmaf(v[i], by[i], b);
    }
    sum += (double)a;
    product += (double)b;
  }
}

// Sum over the parts of column `at`.
__device__ __forceinline__ double over_parts(const double* __restrict__ sums, int parts, int width, int at) {
  double sum = 0.;
  for (int p = 0; p < parts; p++) sum += sums[(long long)p * width + at];
  return sum;
}

}  // namespace flow

extern "C" __global__ void __launch_bounds__(256)
flow_gather(const uint32_t* __restrict__ turn, const uint32_t* __restrict__ fibres, const float* __restrict__ features,
            const float* __restrict__ codes, float* __restrict__ x1, int p1, float* __restrict__ x2, int p2,
            float* __restrict__ cond, int pc, int listed, int m, int each, int n, int positions, int c1, int c2, int k) {
  const int width = c1 + c2 + k;
  const long long at = blockIdx.x * 256ll + threadIdx.x, row = at / width;
  if (row >= n) return;
  const int j = (int)(at % width);
  const long long from = (long long)turn[0] * each + row;
  const long long fibre = from < listed ? fibres[from] : m;
  float v = __uint_as_float(0x7fc00000u);
  if (fibre < m) v = j < c1 + c2 ? features[fibre * (c1 + c2) + j] : codes[fibre % positions * k + j - c1 - c2];
  if (j < c1) x1[row * p1 + j] = v;
  else if (j < c1 + c2) x2[row * p2 + j - c1] = v;
  else cond[row * pc + j - c1 - c2] = v;
}

extern "C" __global__ void __launch_bounds__(256)
flow_output(const float* __restrict__ z1, int p1, const float* __restrict__ z2, int p2, const float* __restrict__ log_det,
            float* __restrict__ value, double* __restrict__ loss, float* __restrict__ g1, int q1, float* __restrict__ g2, int q2,
            float* __restrict__ slope, int rows, int c1, int c2, int energy, float share) {
  using flow::WARP_ROWS;
  const int lane = threadIdx.x & 31, c = c1 + c2;
  const long long first = (blockIdx.x * 8ll + (threadIdx.x >> 5)) * WARP_ROWS;
  if (first >= rows) return;
  // Beyond the last row stands that row, of which nothing is written again.
  auto at = [&](int r) { return first + r < rows ? first + r : rows - 1ll; };
  auto z = [&](int r, int i) { return i < c1 ? z1[at(r) * p1 + i] : z2[at(r) * p2 + i - c1]; };
  double squares[WARP_ROWS];
#pragma unroll
  for (int r = 0; r < WARP_ROWS; r++) squares[r] = 0.;
  for (int i = lane; i < c; i += 32) {
    float v[WARP_ROWS];
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) v[r] = z(r, i);
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) squares[r] += (double)(v[r] * v[r]);
  }
  float weight[WARP_ROWS];
#pragma unroll
  for (int r = 0; r < WARP_ROWS; r++) {
#pragma unroll
    for (int by = 16; by; by >>= 1) squares[r] += __shfl_xor_sync(FULL_WARP, squares[r], by);
    const double det = (double)log_det[at(r)];
    const double out = energy ? squares[r] / c : (det - 0.5 * (squares[r] + c * flow::LN_TWO_PI)) / c;
    weight[r] = share;
    double own = 0.5 * squares[r] - det;
    if (!energy) {
      const float l = (float)out;
      weight[r] = share / (1.f + expf(l));
      own = (double)(fmaxf(-l, 0.f) + log1pf(expf(-fabsf(l))));
      if (l != l) own = out;
    }
    if (lane || first + r >= rows) continue;
    value[first + r] = (float)out;
    if (!g1) continue;
    slope[first + r] = -weight[r];
    loss[first + r] = own;
  }
  if (!g1) return;
  for (int i = lane; i < c; i += 32) {
    float v[WARP_ROWS];
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) v[r] = z(r, i) * weight[r];
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
      if (first + r >= rows) break;
      if (i < c1) g1[(first + r) * q1 + i] = v[r];
      else g2[(first + r) * q2 + i - c1] = v[r];
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
flow_next(const double* __restrict__ loss, uint32_t* __restrict__ turn, double* __restrict__ losses, int rows,
          int count, int capacity) {
  DYN_SMEM(shared);
  double sum = 0.;
  for (int row = threadIdx.x; row < rows; row += 256) sum += loss[row];
  sum = flow::total(sum, (double*)shared);
  if (threadIdx.x == 0) {
    losses[turn[0]] = sum / count;
    if ((int)turn[0] + 1 < capacity) turn[0] += 1;
  }
}

extern "C" __global__ void __launch_bounds__(256)
flow_sums(const float* __restrict__ ga, int pa, const float* __restrict__ gh, int ph, const float* __restrict__ g1, int p1,
          const float* __restrict__ g2, int p2, const float* __restrict__ z1, int q1, const float* __restrict__ z2, int q2,
          const float* __restrict__ slope, double* __restrict__ sums, int rows, int part, int c1, int c2, int h, int add) {
  DYN_SMEM(shared);
  double* tile = (double*)shared;
  const int across = threadIdx.x & 31, down = threadIdx.x >> 5, c = c1 + c2, columns = 2 * c2 + h + c + 1;
  const int column = blockIdx.x * 32 + across;
  // Where this column begins, its pitch, and what it is multiplied by.
  const float *g = nullptr, *z = nullptr;
  int pitch = 0, zitch = 0, at = column;
  if (at < 2 * c2) g = ga + at, pitch = pa;
  else if ((at -= 2 * c2) < h) g = gh + at, pitch = ph;
  else if ((at -= h) < c1) g = g1 + at, pitch = p1, z = z1 + at, zitch = q1;
  else if ((at -= c1) < c2) g = g2 + at, pitch = p2, z = z2 + at, zitch = q2;
  else if (at == c2) g = slope, pitch = 1;
  const int first = blockIdx.y * part, last = first + part < rows ? first + part : rows;
  double sum = 0., product = 0.;
  int begin = first + down;
  if (z) flow::eights<true>(g, pitch, z, zitch, begin, last, sum, product);
  else if (g) flow::eights<false>(g, pitch, z, zitch, begin, last, sum, product);
  for (; g && begin < last; begin += 64) {
    float a = 0.f, b = 0.f;
#pragma unroll
    for (int i = 0; i < 64; i += 8) {
      const long long row = begin + i;
      if (row >= last) break;
      const float v = g[row * pitch];
      a += v;
      if (z) b = fmaf(v, z[row * zitch], b);
    }
    sum += (double)a;
    product += (double)b;
  }
  tile[threadIdx.x] = sum;
  tile[256 + threadIdx.x] = product;
  __syncthreads();
  if (down || !g) return;
  for (int i = 32; i < 256; i += 32) {
    sum += tile[i + across];
    product += tile[256 + i + across];
  }
  double* to = sums + (long long)blockIdx.y * (columns + c);
  to[column] = add ? to[column] + sum : sum;
  double* of_product = to + columns + column - 2 * c2 - h;
  if (z) *of_product = add ? *of_product + product : product;
}

extern "C" __global__ void __launch_bounds__(256)
flow_vectors(const float* __restrict__ numbers, const uint32_t* __restrict__ turn, const double* __restrict__ sums,
             const uint32_t* __restrict__ inverse, const float* __restrict__ scale, float* __restrict__ values,
             float* __restrict__ first, float* __restrict__ second, float* __restrict__ gradient, float* __restrict__ offset,
             float* __restrict__ outer, float* __restrict__ inner, int parts, int c1, int c2, int h) {
  const int c = c1 + c2, columns = 2 * c2 + h + c + 1, width = columns + c;
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= c + h + 2 * c2) return;
  // Adam's step on value `i`, if there is one to take.
  auto step = [&](int i, float g) {
    gradient[i] = g;
    float p = values[i];
    if (numbers) {
      float m = first[i], v = second[i];
      adam::apply(adam::load(numbers, turn), p, m, v, g);
      values[i] = p, first[i] = m, second[i] = v;
    }
    return p;
  };
  if (at < c) {
    const int i = (int)inverse[at];
    const double g = (double)scale[at], through = flow::over_parts(sums, parts, width, columns + i);
    const double sum = flow::over_parts(sums, parts, width, 2 * c2 + h + i), det = flow::over_parts(sums, parts, width, columns - 1);
    // g z = g (y scale + offset); the log-determinant has ln(scale) once a row.
    const double down = (through - (double)offset[at] * sum + det) / g;
    const float half = 0.5f * values[at], rise = 0.1f * (half > 20.f ? 1.f : 1.f / (1.f + expf(-half)));
    step(at, (float)(down * (double)rise));
    offset[at] = step(c + at, (float)sum);
  } else if (at < c + h) {
    const int i = at - c;
    outer[i] = step(c + at, (float)flow::over_parts(sums, parts, width, 2 * c2 + i));
  } else {
    const int i = at - c - h;
    inner[i] = step(c + at, (float)flow::over_parts(sums, parts, width, i));
  }
}

extern "C" __global__ void __launch_bounds__(256)
flow_scale(const float* __restrict__ theta, float* __restrict__ scale, double* __restrict__ log_scale, int c) {
  DYN_SMEM(shared);
  double sum = 0.;
  for (int j = threadIdx.x; j < c; j += 256) {
    const float half = 0.5f * theta[j], g = 0.1f * (half > 20.f ? theta[j] : log1pf(expf(half)) / 0.5f);
    scale[j] = g;
    sum += log((double)g);
  }
  sum = flow::total(sum, (double*)shared);
  if (threadIdx.x == 0) log_scale[0] = sum;
}

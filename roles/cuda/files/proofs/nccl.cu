// Sums over all GPUs with NCCL. Ends with 3 where there is none.
#include <cstdio>
#include <vector>

#include <cuda_runtime.h>
#include <nccl.h>

#define TRY(call)                                                                                   \
  if (ncclResult_t result = (call)) {                                                               \
    printf("%s: %s\n", #call, ncclGetErrorString(result));                                          \
    return 1;                                                                                       \
  }

int main() {
  int version = 0, devices = 0;
  TRY(ncclGetVersion(&version))
  if (version != NCCL_VERSION_CODE) {
    printf("the header is of %d, the library of %d\n", NCCL_VERSION_CODE, version);
    return 1;
  }
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    printf("{\"error\": \"%s\", \"nccl\": %d}\n", cudaGetErrorName(error), version);
    return 3;
  }
  std::vector<ncclComm_t> ranks(devices);
  std::vector<float *> values(devices);
  TRY(ncclCommInitAll(ranks.data(), devices, nullptr))
  for (int at = 0; at < devices; ++at) {
    const float mine = at + 1;
    cudaSetDevice(at);
    cudaMalloc(&values[at], sizeof(float));
    cudaMemcpy(values[at], &mine, sizeof(float), cudaMemcpyHostToDevice);
  }
  TRY(ncclGroupStart())
  for (int at = 0; at < devices; ++at) TRY(ncclAllReduce(values[at], values[at], 1, ncclFloat, ncclSum, ranks[at], nullptr))
  TRY(ncclGroupEnd())
  for (int at = 0; at < devices; ++at) {
    float sum = 0;
    cudaSetDevice(at);
    cudaDeviceSynchronize();
    error = cudaMemcpy(&sum, values[at], sizeof(float), cudaMemcpyDeviceToHost);
    if (error != cudaSuccess || sum != devices * (devices + 1) / 2.0f) {
      printf("%s: GPU %d has %f\n", cudaGetErrorName(error), at, sum);
      return 1;
    }
  }
  printf("{\"nccl\": %d, \"gpus\": %d}\n", version, devices);
  return 0;
}

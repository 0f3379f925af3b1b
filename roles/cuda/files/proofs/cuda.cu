// Doubles numbers on the first GPU. Ends with 3 where there is none.
#include <cstdio>

#include <cuda_runtime.h>

__global__ void twice(float *values, int count) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < count) values[at] *= 2;
}

int main() {
  int devices = 0;
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    printf("{\"error\": \"%s\"}\n", cudaGetErrorName(error));
    return 3;
  }
  const int count = 1 << 20;
  float *values = nullptr;
  if ((error = cudaMallocManaged(&values, count * sizeof(float))) == cudaSuccess) {
    for (int at = 0; at < count; ++at) values[at] = at;
    twice<<<(count + 255) / 256, 256>>>(values, count);
    if ((error = cudaGetLastError()) == cudaSuccess) error = cudaDeviceSynchronize();
  }
  for (int at = 0; error == cudaSuccess && at < count; ++at) {
    if (values[at] != 2.0f * at) {
      printf("element %d is %f\n", at, values[at]);
      return 1;
    }
  }
  cudaDeviceProp properties;
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, 0);
  if (error != cudaSuccess) {
    printf("%s: %s\n", cudaGetErrorName(error), cudaGetErrorString(error));
    return 1;
  }
  printf("{\"gpu\": \"%s\", \"cuda\": %d}\n", properties.name, CUDART_VERSION);
  return 0;
}

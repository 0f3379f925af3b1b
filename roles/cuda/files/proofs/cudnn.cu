// Adds tensors with cuDNN on the first GPU. Loads cuDNN's parts first, which takes no GPU. Ends with 3 where there is none.
#include <cstdio>
#include <vector>

#include <cuda_runtime.h>
#include <cudnn.h>

#define TRY(call)                                                                                   \
  if (cudnnStatus_t status = (call)) {                                                              \
    printf("%s: %s\n", #call, cudnnGetErrorString(status));                                         \
    return 1;                                                                                       \
  }

int main() {
  if (cudnnGetVersion() != CUDNN_VERSION) {
    printf("the header is of %d, the library of %zu\n", CUDNN_VERSION, cudnnGetVersion());
    return 1;
  }
  TRY(cudnnGraphVersionCheck())
  TRY(cudnnOpsVersionCheck())
  TRY(cudnnCnnVersionCheck())
  TRY(cudnnAdvVersionCheck())
  int devices = 0;
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    printf("{\"error\": \"%s\", \"cudnn\": %zu}\n", cudaGetErrorName(error), cudnnGetVersion());
    return 3;
  }
  const int count = 1024;
  std::vector<float> ones(count, 1.0f), sums(count, 2.0f);
  float *left = nullptr, *right = nullptr;
  cudaMalloc(&left, count * sizeof(float));
  cudaMalloc(&right, count * sizeof(float));
  cudaMemcpy(left, ones.data(), count * sizeof(float), cudaMemcpyHostToDevice);
  cudaMemcpy(right, sums.data(), count * sizeof(float), cudaMemcpyHostToDevice);
  cudnnHandle_t handle;
  cudnnTensorDescriptor_t shape;
  TRY(cudnnCreate(&handle))
  TRY(cudnnCreateTensorDescriptor(&shape))
  TRY(cudnnSetTensor4dDescriptor(shape, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, 32, 32))
  const float three = 3.0f, one = 1.0f;
  TRY(cudnnAddTensor(handle, &three, shape, left, &one, shape, right))
  error = cudaMemcpy(sums.data(), right, count * sizeof(float), cudaMemcpyDeviceToHost);
  for (int at = 0; at < count; ++at) {
    if (error != cudaSuccess || sums[at] != 5.0f) {
      printf("%s: element %d is %f\n", cudaGetErrorName(error), at, sums[at]);
      return 1;
    }
  }
  printf("{\"cudnn\": %zu}\n", cudnnGetVersion());
  return 0;
}

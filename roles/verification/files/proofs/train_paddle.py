# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that PaddlePaddle trains."""

import digits


def train(data):
    import paddle
    from paddle import nn

    paddle.seed(0)
    pooled = (data.side - 2) // 2
    model = nn.Sequential(
        nn.Conv2D(1, digits.FILTERS, 3),
        nn.ReLU(),
        nn.MaxPool2D(2),
        nn.Flatten(),
        nn.Linear(digits.FILTERS * pooled * pooled, digits.HIDDEN),
        nn.ReLU(),
        nn.Linear(digits.HIDDEN, digits.CLASSES),
    )
    loss_of = nn.CrossEntropyLoss()
    optimizer = paddle.optimizer.Adam(learning_rate=5e-3, parameters=model.parameters())

    def images_of(array):
        return paddle.to_tensor(array.transpose(0, 3, 1, 2))

    for images, labels in digits.batches(data):
        loss_of(model(images_of(images)), paddle.to_tensor(labels)).backward()
        optimizer.step()
        optimizer.clear_grad()
    with paddle.no_grad():
        guesses = model(images_of(data.test_images)).argmax(axis=1).numpy()
    return (guesses == data.test_labels).mean(), used(model.parameters()[0])


def used(tensor):
    import paddle

    place = tensor.place
    on_cpu = place.is_cpu_place()
    return digits.Used(
        version=paddle.__version__,
        device="cpu" if on_cpu else "gpu",
        device_name="CPU" if on_cpu else f"{paddle.device.cuda.get_device_name()} (gpu:{place.gpu_device_id()})",
        built_for_gpu=paddle.is_compiled_with_cuda(),
    )


if __name__ == "__main__":
    digits.prove("PaddlePaddle", train)

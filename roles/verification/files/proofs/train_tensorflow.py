# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that TensorFlow trains: its own operations, graph compiler and gradients, without Keras (which has a proof of its own)."""

import digits


def train(data):
    import tensorflow as tf

    pooled = (data.side - 2) // 2
    random = tf.random.Generator.from_seed(0)

    def weights(*shape, inputs):
        return tf.Variable(random.normal(shape, stddev=(2.0 / inputs) ** 0.5))

    flat = digits.FILTERS * pooled * pooled
    parameters = [
        weights(3, 3, 1, digits.FILTERS, inputs=9),
        tf.Variable(tf.zeros([digits.FILTERS])),
        weights(flat, digits.HIDDEN, inputs=flat),
        tf.Variable(tf.zeros([digits.HIDDEN])),
        weights(digits.HIDDEN, digits.CLASSES, inputs=digits.HIDDEN),
        tf.Variable(tf.zeros([digits.CLASSES])),
    ]
    speeds = [tf.Variable(tf.zeros_like(parameter)) for parameter in parameters]

    def logits_of(images):
        kernel, bias, *dense = parameters
        features = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "VALID") + bias), 2, 2, "VALID")
        hidden = tf.nn.relu(tf.reshape(features, [-1, flat]) @ dense[0] + dense[1])
        return hidden @ dense[2] + dense[3]

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits_of(images)))
        for index, gradient in enumerate(tape.gradient(loss, parameters)):
            speeds[index].assign(0.9 * speeds[index] - 0.03 * gradient)  # stochastic gradient descent with momentum
            parameters[index].assign_add(speeds[index])

    for images, labels in digits.batches(data):
        step(tf.constant(images), tf.constant(labels))
    guesses = tf.argmax(logits_of(tf.constant(data.test_images)), axis=1).numpy()
    return (guesses == data.test_labels).mean(), used(parameters[0])


def used(tensor):
    import tensorflow as tf

    device = tensor.device.rpartition("device:")[2]  # CPU:0 or GPU:0
    on_cpu = device.startswith("CPU")
    name = "CPU"
    if not on_cpu:
        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        name = f"{details.get('device_name', 'GPU')} ({device})"
    return digits.Used(
        version=tf.__version__,
        device="cpu" if on_cpu else "gpu",
        device_name=name,
        built_for_gpu=tf.test.is_built_with_gpu_support(),
    )


if __name__ == "__main__":
    digits.prove("TensorFlow", train)

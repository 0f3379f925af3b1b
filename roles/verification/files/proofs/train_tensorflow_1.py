# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that TensorFlow 1 trains: a graph in a session, with its own gradients and optimizer. For Python 2.7 too."""

import digits


def train(data):
    import tensorflow as tf

    tf.set_random_seed(0)
    pooled = (data.side - 2) // 2
    flat = digits.FILTERS * pooled * pooled

    def layer(inputs, outputs):
        start = tf.truncated_normal([inputs, outputs], stddev=(2.0 / inputs) ** 0.5)
        return tf.Variable(start), tf.Variable(tf.zeros([outputs]))

    images = tf.placeholder(tf.float32, [None, data.side, data.side, 1])
    labels = tf.placeholder(tf.int64, [None])
    kernel = tf.Variable(tf.truncated_normal([3, 3, 1, digits.FILTERS], stddev=(2.0 / 9) ** 0.5))
    features = tf.nn.relu(tf.nn.conv2d(images, kernel, [1, 1, 1, 1], "VALID") + tf.Variable(tf.zeros([digits.FILTERS])))
    features = tf.nn.max_pool(features, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
    weights, bias = layer(flat, digits.HIDDEN)
    hidden = tf.nn.relu(tf.matmul(tf.reshape(features, [-1, flat]), weights) + bias)
    weights, bias = layer(digits.HIDDEN, digits.CLASSES)
    logits = tf.matmul(hidden, weights) + bias
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    step = tf.train.MomentumOptimizer(0.03, 0.9).minimize(loss)
    guess = tf.argmax(logits, axis=1)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for some_images, some_labels in digits.batches(data):
            session.run(step, {images: some_images, labels: some_labels})
        guesses = session.run(guess, {images: data.test_images})
        return (guesses == data.test_labels).mean(), used(session)


def used(session):
    """Say on which device of a session its variables and what is made of them are: the first GPU, where it has one."""
    import tensorflow as tf

    gpu = next((device.name for device in session.list_devices() if device.device_type == "GPU"), "")
    name = gpu.rpartition("device:")[2] or "CPU"
    return digits.Used(tf.__version__, "gpu" if gpu else "cpu", name, tf.test.is_built_with_cuda())


if __name__ == "__main__":
    digits.prove("TensorFlow", train)

# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that JAX trains."""

import digits


def train(data):
    import jax
    from jax import numpy as jnp

    pooled = (data.side - 2) // 2
    flat = digits.FILTERS * pooled * pooled
    keys = jax.random.split(jax.random.key(0), 3)

    def weights(key, *shape, inputs):
        return jax.random.normal(key, shape) * (2.0 / inputs) ** 0.5

    parameters = [
        weights(keys[0], 3, 3, 1, digits.FILTERS, inputs=9),
        jnp.zeros(digits.FILTERS),
        weights(keys[1], flat, digits.HIDDEN, inputs=flat),
        jnp.zeros(digits.HIDDEN),
        weights(keys[2], digits.HIDDEN, digits.CLASSES, inputs=digits.HIDDEN),
        jnp.zeros(digits.CLASSES),
    ]
    speeds = [jnp.zeros_like(parameter) for parameter in parameters]

    def logits_of(parameters, images):
        kernel, bias, *dense = parameters
        features = jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        features = jax.lax.reduce_window(jax.nn.relu(features + bias), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        hidden = jax.nn.relu(features.reshape(-1, flat) @ dense[0] + dense[1])
        return hidden @ dense[2] + dense[3]

    def loss_of(parameters, images, labels):
        likelihoods = jax.nn.log_softmax(logits_of(parameters, images))
        return -jnp.mean(jnp.take_along_axis(likelihoods, labels[:, None], axis=1))

    @jax.jit
    def step(parameters, speeds, images, labels):
        gradients = jax.grad(loss_of)(parameters, images, labels)
        # stochastic gradient descent with momentum
        speeds = jax.tree.map(lambda speed, gradient: 0.9 * speed - 0.03 * gradient, speeds, gradients)
        return jax.tree.map(jnp.add, parameters, speeds), speeds

    for images, labels in digits.batches(data):
        parameters, speeds = step(parameters, speeds, images, labels)
    guesses = logits_of(parameters, data.test_images).argmax(axis=1)
    return (guesses == data.test_labels).mean(), used(parameters[0])


def used(tensor):
    from importlib.metadata import distributions

    import jax

    device = next(iter(tensor.devices()))
    on_cpu = device.platform == "cpu"
    installed = [distribution.metadata["Name"] or "" for distribution in distributions()]
    return digits.Used(
        version=jax.__version__,
        device="cpu" if on_cpu else "gpu",
        device_name="CPU" if on_cpu else f"{device.device_kind} ({device})",
        built_for_gpu=any(name.startswith(("jax-cuda", "jax-rocm")) for name in installed),
    )


if __name__ == "__main__":
    digits.prove("JAX", train)

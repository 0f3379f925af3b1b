# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that Keras trains, on whichever backend the environment gives it."""

import digits


def train(data):
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((data.side, data.side, 1)),
            keras.layers.Conv2D(digits.FILTERS, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(digits.HIDDEN, activation="relu"),
            keras.layers.Dense(digits.CLASSES),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data.train_images, data.train_labels, batch_size=digits.BATCH, epochs=data.epochs, verbose=0)
    accuracy = model.evaluate(data.test_images, data.test_labels, verbose=0)[1]
    backend = keras.backend.backend()
    device, name, built_for_gpu, version = _ASK[backend](model.trainable_variables[0].value)
    return digits.Outcome(
        version="%s (%s %s)" % (keras.__version__, backend, version),
        accuracy=accuracy,
        device=device,
        device_name=name,
        built_for_gpu=built_for_gpu,
    )


def _ask_tensorflow(value):
    import tensorflow as tf

    used = value.device.rpartition("device:")[2]  # CPU:0 or GPU:0
    built = tf.test.is_built_with_gpu_support()
    return ("cpu", "CPU", built, tf.__version__) if used.startswith("CPU") else ("gpu", used, built, tf.__version__)


def _ask_torch(value):
    import torch

    built = bool(torch.version.cuda or torch.version.hip)
    return ("cpu", "CPU", built, torch.__version__) if value.device.type == "cpu" else ("gpu", str(value.device), built, torch.__version__)


def _ask_jax(value):
    import jax
    from train_jax import _has_gpu_plugin

    used = next(iter(value.devices()))
    return ("cpu" if used.platform == "cpu" else "gpu", used.device_kind.upper(), _has_gpu_plugin(), jax.__version__)


_ASK = {"tensorflow": _ask_tensorflow, "torch": _ask_torch, "jax": _ask_jax}


if __name__ == "__main__":
    digits.prove("Keras", train)

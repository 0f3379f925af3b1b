# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that Keras trains, on whichever backend the environment gives it."""

from importlib import import_module

import digits

PROOF_OF = {"tensorflow": "train_tensorflow", "torch": "train_pytorch", "jax": "train_jax"}


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
        optimizer=keras.optimizers.Adam(5e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data.train_images, data.train_labels, batch_size=digits.BATCH, epochs=data.epochs, verbose=0)
    accuracy = model.evaluate(data.test_images, data.test_labels, verbose=0)[1]
    backend = keras.backend.backend()
    of_backend = import_module(PROOF_OF[backend]).used(model.trainable_variables[0].value)
    return accuracy, of_backend._replace(version=f"{keras.__version__} ({backend} {of_backend.version})")


if __name__ == "__main__":
    digits.prove("Keras", train)

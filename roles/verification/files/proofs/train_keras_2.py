# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Proof that Keras 2 trains, on TensorFlow 1. For Python 2.7 too."""

import digits
import train_tensorflow_1


def train(data):
    import keras
    import numpy
    import tensorflow as tf

    numpy.random.seed(0)
    tf.set_random_seed(0)
    layers = keras.layers
    model = keras.models.Sequential(
        [
            layers.Conv2D(digits.FILTERS, 3, activation="relu", input_shape=(data.side, data.side, 1)),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(digits.HIDDEN, activation="relu"),
            layers.Dense(digits.CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.train_images, data.train_labels, batch_size=digits.BATCH, epochs=data.epochs, verbose=0)
    accuracy = model.evaluate(data.test_images, data.test_labels, verbose=0)[1]
    of_backend = train_tensorflow_1.used(keras.backend.get_session())
    return accuracy, of_backend._replace(version="{} (tensorflow {})".format(keras.__version__, of_backend.version))


if __name__ == "__main__":
    digits.prove("Keras", train)
